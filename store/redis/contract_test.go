package redis

import (
	"testing"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/store"
	"github.com/cachedpg/cachedpg/store/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	storetest.Run(t, func(t *testing.T) store.Store { return leased(t, r.URL(), nil) })
}

func TestContractEncrypted(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	sealer, err := NewSealer([]Key{{ID: 1, Secret: make([]byte, 32)}})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, func(t *testing.T) store.Store { return leased(t, r.URL(), sealer) })
}

// Redis evicts whatever it likes. Where it took the intents the epoch is over, and
// the protocol's writers, which do not wait for a new one, are not those of the
// driver: so only what never loses them is run.
func TestContractEvicting(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--maxmemory", "3mb", "--maxmemory-policy", "volatile-lru")
	storetest.RunProtocol(t, func(t *testing.T) store.Store { return leased(t, r.URL(), nil) })
}

func leased(t *testing.T, url string, sealer *Sealer) store.Store {
	t.Helper()
	target, err := ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	target.Sealer = sealer
	u := openTarget(t, target, Options{})
	u.keep()
	return u.Store
}
