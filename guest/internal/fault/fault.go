// Package fault is the protocol's error: a reason that programs test and a message that people read.
package fault

import (
	"errors"
	"fmt"
)

// Reason is one of the protocol's upper-case error names.
type Reason string

// The reasons of the protocol.
const (
	BadRequest           Reason = "BAD_REQUEST"
	Unsupported          Reason = "UNSUPPORTED"
	ProcessNotFound      Reason = "PROCESS_NOT_FOUND"
	ProcessExists        Reason = "PROCESS_EXISTS"
	ProcessLimit         Reason = "PROCESS_LIMIT"
	RequestConflict      Reason = "REQUEST_CONFLICT"
	ResultForgotten      Reason = "RESULT_FORGOTTEN"
	OffsetOutOfRange     Reason = "OFFSET_OUT_OF_RANGE"
	InputTaken           Reason = "INPUT_TAKEN"
	NoTerminal           Reason = "NO_TERMINAL"
	ProgramNotFound      Reason = "PROGRAM_NOT_FOUND"
	ProgramNotExecutable Reason = "PROGRAM_NOT_EXECUTABLE"
	WorkingDirNotFound   Reason = "WORKING_DIR_NOT_FOUND"
	UserUnavailable      Reason = "USER_UNAVAILABLE"
	StartFailed          Reason = "START_FAILED"
	FileNotFound         Reason = "FILE_NOT_FOUND"
	FileExists           Reason = "FILE_EXISTS"
	NotADirectory        Reason = "NOT_A_DIRECTORY"
	IsADirectory         Reason = "IS_A_DIRECTORY"
	NotARegularFile      Reason = "NOT_A_REGULAR_FILE"
	DirectoryNotEmpty    Reason = "DIRECTORY_NOT_EMPTY"
	PathEscapes          Reason = "PATH_ESCAPES"
	PermissionDenied     Reason = "PERMISSION_DENIED"
	NoSpace              Reason = "NO_SPACE"
	ContentMismatch      Reason = "CONTENT_MISMATCH"
	BadArchive           Reason = "BAD_ARCHIVE"
	WatchLimit           Reason = "WATCH_LIMIT"
	FileSystem           Reason = "FILE_SYSTEM"
	Cancelled            Reason = "CANCELLED"
	ShuttingDown         Reason = "SHUTTING_DOWN"
)

// Error is the payload of an ERROR frame.
type Error struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Message }

// New makes an Error with a formatted message.
func New(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// From returns err's Error, or wraps any other error under the reason otherwise.
func From(err error, otherwise Reason) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Reason: otherwise, Message: err.Error()}
}

// Is reports whether err is an Error of the given reason.
func Is(err error, reason Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}
