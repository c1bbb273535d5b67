package server

import (
	"encoding/json"
	"os"

	"agentic-isolation/guest/internal/cgroup"
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/kernel"
	"agentic-isolation/guest/internal/link"
)

const (
	// maxRecord bounds what is remembered, in bytes.
	maxRecord = 512 << 10
	// maxEncodedRecord bounds it as info has to tell it: with all the rest it must fit into a frame.
	maxEncodedRecord = frame.MaxPayload - 64<<10
)

type leaseRequest struct {
	TTLMS int64 `json:"ttl_ms"`
}

type leaseResult struct {
	// LeftMS is absent on links of version 1.
	LeftMS *int64 `json:"lease_left_ms,omitempty"`
}

func (g *Guest) renew(ch *link.Channel, r *leaseRequest) (leaseResult, error) {
	ttl, err := millis("ttl_ms", r.TTLMS, 1)
	if err != nil {
		return leaseResult{}, err
	}
	left, ok := g.lease.Renew(ttl)
	if !ok {
		return leaseResult{}, fault.New(fault.ShuttingDown, "the lease has ended")
	}
	if ch.Version() < 2 {
		return leaseResult{}, nil
	}
	n := left.Milliseconds()
	return leaseResult{LeftMS: &n}, nil
}

type rememberRequest struct {
	Record *string `json:"record"`
}

func (g *Guest) remember(_ *link.Channel, r *rememberRequest) (none, error) {
	if err := checkRecord(r.Record); err != nil {
		return none{}, err
	}
	g.record.Store(r.Record)
	return none{}, nil
}

func checkRecord(record *string) error {
	if record == nil {
		return fault.New(fault.BadRequest, "record: required")
	}
	if len(*record) > maxRecord {
		return fault.New(fault.BadRequest, "record: at most %d bytes, not %d", maxRecord, len(*record))
	}
	if encoded, err := json.Marshal(record); err != nil || len(encoded) > maxEncodedRecord {
		return fault.New(fault.BadRequest, "record: too long as a JSON string, %d bytes", len(encoded))
	}
	return nil
}

type infoResult struct {
	kernel.Info
	Limits limitsResult `json:"limits"`
	leaseResult
	// Record is absent when nothing was given to remember, and on links of version 1.
	Record *string `json:"record,omitempty"`
}

// limitsResult is what workloads are held to, as they would find it themselves.
type limitsResult struct {
	cgroup.Limits
	OpenFiles *int64 `json:"open_files,omitempty"`
	// Processes is the limit of the user's processes, which counts where the place has a user table of its own.
	Processes *int64 `json:"processes,omitempty"`
	// Disk is the size of the working directory's file system.
	Disk *int64 `json:"disk_bytes,omitempty"`
}

func (g *Guest) info(ch *link.Channel, _ *none) (infoResult, error) {
	result := infoResult{Info: kernel.Describe()}
	if ch.Version() >= 2 {
		left := g.lease.Left().Milliseconds()
		result.LeftMS, result.Record = &left, g.record.Load()
	}
	if os.Getpid() == 1 {
		result.Limits.Limits = g.group.Limits()
		result.Limits.OpenFiles, result.Limits.Processes = kernel.ResourceLimits()
		if size, ok := kernel.SizeBytes(g.config.WorkingDir); ok {
			result.Limits.Disk = &size
		}
	}
	return result, nil
}

type usageResult struct {
	cgroup.Usage
	// Disk is what the working directory's file system holds.
	Disk *int64 `json:"disk_bytes,omitempty"`
}

func (g *Guest) usage(*link.Channel, *none) (usageResult, error) {
	used := usageResult{Usage: g.group.Usage()}
	if n, ok := kernel.UsedBytes(g.config.WorkingDir); ok && os.Getpid() == 1 {
		used.Disk = &n
	}
	return used, nil
}
