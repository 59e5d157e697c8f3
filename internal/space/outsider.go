package space

import (
	"context"
	"strings"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/guard"
	"github.com/cachedpg/cachedpg/internal/peers"
)

// outsider is a process with cache_store=off in which nobody caches either: it has
// no space and nothing to mark in, so that all it can do for those who cache
// elsewhere is to be seen before it writes.
type outsider struct {
	guard guard.Guard
	peers *peers.Peers
	users int // guarded by spacesMu
}

var outsiders = make(map[spaceKey]*outsider) // guarded by spacesMu

// standOutside makes d a user of the outsider of a database. Who calls it holds spacesMu.
func (d *Member) standOutside(key spaceKey) {
	o := d.outside[key]
	if o == nil {
		if o = outsiders[key]; o == nil {
			o = &outsider{}
			o.guard.ID = key.Identity
			own := peers.NewCamp(peers.Off)
			o.peers = peers.New(&o.guard, key.process, func() peers.Camp { return own }, "", nil)
			o.peers.Watches = true
			outsiders[key] = o
		}
		o.users++
		o.guard.Add(d.Dialler)
		if d.outside == nil {
			d.outside = make(map[spaceKey]*outsider)
		}
		d.outside[key] = o
	}
	d.Outer.Store(o)
}

// comeInside has the process marked for where a space is. Who calls it holds spacesMu.
func (d *Member) comeInside(key spaceKey) {
	if o := outsiders[key]; o != nil {
		delete(outsiders, key)
		go o.close() // it may be asking
	}
	delete(d.outside, key)
}

// GoAway leaves all outsiders.
func (d *Member) GoAway() {
	d.Outer.Store(nil)
	spacesMu.Lock()
	outside := d.outside
	d.outside = nil
	var last []*outsider
	for key, o := range outside {
		o.guard.Remove(d.Dialler)
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

// Announce returns when c may commit what it has written. pooled says that c may reach another server each time.
func (o *outsider) Announce(ctx context.Context, c peers.Committer, pooled bool) error {
	if o == nil {
		return nil
	}
	if in := c.Inner(); pooled && in.TxStatus() == 'T' { // a pooler may have led it elsewhere, or everything since
		where, err := backend.AskIn(ctx, in, "SELECT "+backend.IdentitySQL)
		if err != nil {
			return err
		}
		if where != o.guard.ID.Text() {
			return o.peers.AnnounceOn(ctx, c, where[strings.LastIndexByte(where, '/')+1:])
		}
	}
	return o.peers.Announce(ctx, c)
}

func (o *outsider) close() {
	o.peers.Close()
	o.guard.Close()
}
