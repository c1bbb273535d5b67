package server

import (
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/lease"
	"agentic-isolation/guest/internal/link"
)

// claimRequest makes a guest that was started for nobody in particular somebody's.
type claimRequest struct {
	LeaseMS    int64             `json:"lease_ms"`
	IdleMS     int64             `json:"idle_ms"`
	LifetimeMS int64             `json:"lifetime_ms"`
	Values     map[string]string `json:"values"`
	Record     *string           `json:"record"`
}

// claim sets everything that a workspace's owner decides, at once, and once only: whoever comes second is told.
func (g *Guest) claim(_ *link.Channel, r *claimRequest) (leaseResult, error) {
	terms, err := r.terms()
	if err != nil {
		return leaseResult{}, err
	}
	if err := checkSecrets(r.Values); err != nil {
		return leaseResult{}, err
	}
	if err := checkRecord(r.Record); err != nil {
		return leaseResult{}, err
	}
	if !g.claimed.CompareAndSwap(false, true) {
		return leaseResult{}, fault.New(fault.BadRequest, "the guest was claimed before")
	}
	left, ok := g.lease.Restart(terms)
	if !ok {
		return leaseResult{}, fault.New(fault.ShuttingDown, "the lease has ended")
	}
	g.secrets.Store(newSecrets(r.Values))
	g.record.Store(r.Record)
	n := left.Milliseconds()
	return leaseResult{LeftMS: &n}, nil
}

func (r *claimRequest) terms() (terms lease.Terms, err error) {
	if terms.Lease, err = millis("lease_ms", r.LeaseMS, 1); err != nil {
		return terms, err
	}
	if terms.Idle, err = millis("idle_ms", r.IdleMS, 0); err != nil {
		return terms, err
	}
	terms.Lifetime, err = millis("lifetime_ms", r.LifetimeMS, 0)
	return terms, err
}
