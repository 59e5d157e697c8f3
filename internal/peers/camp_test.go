package peers

import (
	"fmt"
	"testing"

	"github.com/cachedpg/cachedpg/internal/guard"
)

func TestCampsAreReadFromLocks(t *testing.T) {
	for _, kind := range []Kind{InMemory, Shared, Off} {
		c := NewCamp(kind, t.Name(), "a")
		if c == NewCamp(kind, t.Name()+"a", "") {
			t.Errorf("%v: facts run into each other", c)
		}
		got, writes := campOf(c.writeLock())
		if got != c || !writes || c.writeLock() < 0 || c.writeLock() > 1<<31-1 {
			t.Errorf("the lock %x of a writer of %+v is read as %+v, %v", c.writeLock(), c, got, writes)
		}
		if got, writes := campOf(c.cacheLock()); got != c || writes {
			t.Errorf("the lock %x of a cache of %+v is read as %+v, %v", c.cacheLock(), c, got, writes)
		}
	}
	s, err := parseCensus(fmt.Sprintf("true|%d:%d,%d:%d,%d:%d", guard.LockCamps, NewCamp(Off).writeLock(), guard.LockClass, guard.LockNotice, guard.LockPolicies, 7))
	if err != nil || !s.young || !s.notice || len(s.writers) != 1 || len(s.caches) != 0 || len(s.policies) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := parseCensus("true"); err == nil {
		t.Error("half an answer is taken for one")
	}
}
