package files

// Change is something that has happened in a directory that is watched.
type Change struct {
	// Kind is created, modified, removed, moved, attributes, or overflow: changes were missed here.
	Kind        string `json:"change"`
	Path        string `json:"path,omitempty"`
	From        string `json:"from,omitempty"`
	IsDirectory bool   `json:"directory"`
}

// Overflow is the kind of change that stands for those that were missed.
const Overflow = "overflow"

// maxWatched bounds the directories of one watch.
const maxWatched = 1 << 16

// maxFresh bounds the names that a watch remembers for having told of them before the kernel did.
const maxFresh = 1 << 16

// Listener is told what a watch sees.
type Listener interface {
	// Tell takes a change. It may wait, and so holds up the watch.
	Tell(c Change) error
	// Flush is called when nothing more is to be told for now.
	Flush() error
}
