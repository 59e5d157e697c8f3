package space

import (
	"cmp"
	"errors"
	"strconv"
	"sync/atomic"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/store/redis"
)

// Member is what a space has to know of an sql.DB that joins it.
type Member struct {
	Config    config.Config
	Target    *redis.Target // of a shared store, else nil
	StoreName string        // "memory", "off", or what a shared store is, however it is reached
	Process   string        // see spaceKey
	Build     string        // other than "" a build of another format, in tests
	Watches   bool          // PostgreSQL is asked for changes of the catalog
	Dialler   guard.Dialler

	outside map[spaceKey]*outsider // guarded by spacesMu
	Outer   atomic.Pointer[outsider]
}

// Stranger reports that the space keeps its entries elsewhere than d is to: d writes in
// it, and reads nothing from it.
func (d *Member) Stranger(sp *Space) bool {
	return sp != nil && sp.named != "" && sp.named != d.StoreName
}

// StrangerThan is stranger in words; nil also for who wants no store.
func (d *Member) StrangerThan(sp *Space) error {
	if d.Config.Store == config.StoreOff || !d.Stranger(sp) {
		return nil
	}
	return ErrOtherStore
}

// format is a part of all names in a shared store: a build that reads rows, tags or
// their values otherwise than another one neither finds what that has stored nor
// hears of what it marks, so each of the two has to see that it has not the store to itself.
func (d *Member) format() string {
	return "/" + cmp.Or(d.Build, strconv.Itoa(backend.FormatVersion))
}

// ErrOtherStore is why an sql.DB reads from no store: another one of this process has the same database in another.
var ErrOtherStore = errors.New("cachedpg: cache_store: another sql.DB of this process has the same database in another store, so this one reads from none; name the same store in both, where parameters such as pool_size may differ")
