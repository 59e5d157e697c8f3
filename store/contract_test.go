package store_test

import (
	"testing"

	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/storetest"
)

func TestMemoryContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory(store.Options{}) })
}

// Some entries and a few hundred tags fit in: everything is evicted all the time.
func TestSmallMemoryContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return store.NewMemory(store.Options{Bytes: 16 << 10, EntryBytes: 8 << 10})
	})
}

// Hardly anything fits in. The single checks need an entry that stays, the
// protocol does not.
func TestTinyMemoryInterleavings(t *testing.T) {
	storetest.RunProtocol(t, func(*testing.T) store.Store {
		return store.NewMemory(store.Options{Bytes: 1500, EntryBytes: 1500})
	})
}
