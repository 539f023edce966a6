// Package waiting has the wait between two attempts: rule 2 of clients/SPEC.md.
package waiting

import (
	"math/rand/v2"
	"time"
)

const (
	shortest = 100 * time.Millisecond
	longest  = 5 * time.Second
	lasting  = 10 * time.Second // a session that was up for this long forgets the failures before it
)

// Backoff has full jitter.
type Backoff struct {
	// UpSince is when the session came up; zero if it did not.
	UpSince time.Time
	most    time.Duration
}

// Next is how long to wait: at random, or for as long as the hub asks if that is longer.
func (b *Backoff) Next(asked time.Duration) time.Duration {
	most := max(b.most, shortest)
	if !b.UpSince.IsZero() && time.Since(b.UpSince) >= lasting {
		most = shortest
	}
	b.most, b.UpSince = min(2*most, longest), time.Time{}
	return max(asked, rand.N(most))
}
