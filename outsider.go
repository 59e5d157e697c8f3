package cachedpg

import (
	"context"
	"strings"

	"github.com/cachedpg/cachedpg/keying"
)

// outsider is a process with cache_store=off in which nobody caches either: it has
// no space and nothing to mark in, so that all it can do for those who cache
// elsewhere is to be seen before it writes.
type outsider struct {
	guard guard
	peers *peers
	users int // guarded by spacesMu
}

var outsiders = make(map[spaceKey]*outsider) // guarded by spacesMu

// standOutside makes d a user of the outsider of a database. Who calls it holds spacesMu.
func (d *connector) standOutside(key spaceKey) {
	o := d.outside[key]
	if o == nil {
		if o = outsiders[key]; o == nil {
			o = &outsider{}
			o.guard.id = key.identity
			own := newCamp(campOff)
			o.peers = newPeers(&o.guard, key.process, func() camp { return own }, "", nil)
			o.peers.watches = true
			outsiders[key] = o
		}
		o.users++
		o.guard.add(d)
		if d.outside == nil {
			d.outside = make(map[spaceKey]*outsider)
		}
		d.outside[key] = o
	}
	d.outer.Store(o)
}

// comeInside has the process marked for where a space is. Who calls it holds spacesMu.
func (d *connector) comeInside(key spaceKey) {
	if o := outsiders[key]; o != nil {
		delete(outsiders, key)
		go o.close() // it may be asking
	}
	delete(d.outside, key)
}

// goAway leaves all outsiders.
func (d *connector) goAway() {
	d.outer.Store(nil)
	spacesMu.Lock()
	outside := d.outside
	d.outside = nil
	var last []*outsider
	for key, o := range outside {
		o.guard.remove(d)
		if o.users--; o.users == 0 && outsiders[key] == o {
			delete(outsiders, key)
			last = append(last, o)
		}
	}
	spacesMu.Unlock()
	for _, o := range last {
		o.close()
	}
}

func (o *outsider) announce(ctx context.Context, c *Conn) error {
	if o == nil {
		return nil
	}
	if c.pid == 0 && c.inner.txStatus() == 'T' { // a pooler may have led it elsewhere, or everything since
		where, err := c.inner.text(ctx, "SELECT "+identityText)
		if err != nil {
			return err
		}
		if where != o.guard.id.text() {
			return o.peers.announceOn(ctx, c, where[strings.LastIndexByte(where, '/')+1:])
		}
	}
	return o.peers.announce(ctx, c)
}

func (o *outsider) close() {
	o.peers.close()
	o.guard.close()
}

// bypass is why a mode that reads nothing reads nothing.
func (c Config) bypass() keying.Reason {
	if c.Mode == modeOff {
		return keying.CacheOff
	}
	return keying.WriteOnly
}
