package feed

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/step"
)

// followedCatalog is the schema that a follower makes tags with. To load it takes
// many times as long as all else, so that what comes after a change of the schema
// does not wait for it: from then on until it is loaded everything is marked, by
// a mark of the follower's own, and PostgreSQL answers.
//
//	log                        follower                   reader
//	DDL, visible
//	                           marks everything
//	                           everything is cold
//	                           begins to load
//	UPDATE
//	                           (nothing to add)
//	                                                      lookup: dirty
//	                           has loaded; releases
//	                                                      lookup: miss, a new stamp
//
// The load begins when the transaction is visible: before that it would read the
// old schema, and nothing would tell.
type followedCatalog struct {
	behind  bool               // a transaction has changed the schema since
	due     bool               // and is visible, after the last load began
	loading chan loadedCatalog // nil unless one is under way
}

type loadedCatalog struct {
	snapshot *catalog.Snapshot
	err      error
}

// wait returns when no load is under way. Its context is over.
func (c *followedCatalog) wait() {
	if c.loading != nil {
		<-c.loading
		c.loading = nil
	}
}

// reload begins to load the catalog if it is due. What is not visible yet would be
// missed.
func (f *follower) reload(ctx context.Context) error {
	c := &f.catalog
	if !c.due || c.loading != nil || slices.ContainsFunc(f.pending, func(t *followed) bool { return t.redefines }) {
		return nil
	}
	c.due = false
	if f.writer == nil { // nobody could be kept from what is behind
		snapshot, err := f.guard.LoadCatalog(ctx, f.snapshot)
		return f.loaded(ctx, loadedCatalog{snapshot, err})
	}
	loading := make(chan loadedCatalog, 1)
	c.loading = loading
	before := f.snapshot
	go func() {
		snapshot, err := f.guard.LoadCatalogAside(ctx, before)
		step.At(step.Reloaded)
		loading <- loadedCatalog{snapshot, err}
	}()
	return nil
}

// loaded takes a catalog over, unless it is behind already.
func (f *follower) loaded(ctx context.Context, l loadedCatalog) error {
	f.catalog.loading = nil
	if l.err != nil {
		return l.err
	}
	if f.catalog.due || slices.ContainsFunc(f.pending, func(t *followed) bool { return t.redefines }) {
		return f.reload(ctx)
	}
	f.snapshot, f.catalog.behind = l.snapshot, false
	return f.allow(ctx)
}

// withhold marks everything until allow.
func (f *follower) withhold(ctx context.Context) error {
	if f.writer == nil || f.shut != nil {
		return nil
	}
	f.shut = &followed{writer: f.writer(), tags: f.everything}
	if err := f.intend(ctx, f.shut.writer, f.shut.tags); err != nil {
		return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
	}
	return nil
}

// allow releases what withhold has marked.
func (f *follower) allow(ctx context.Context) error {
	if f.shut == nil {
		return nil
	}
	if err := f.release(ctx, f.shut.writer, f.shut.tags); err != nil {
		return fmt.Errorf("cachedpg: cache_external=wal: the store: %w", err)
	}
	f.shut = nil
	return nil
}

// sameKeys reports that rows of tables, which PostgreSQL has described again, are
// named as before. REINDEX CONCURRENTLY makes new indexes in place of others, and
// tells no event trigger before version 17; ANALYZE changes nothing.
func (f *follower) sameKeys(ctx context.Context, tables []uint32) (bool, error) {
	var indexes []string
	for _, oid := range tables {
		rel := f.snapshot.ByOID(oid)
		if rel == nil {
			return false, nil
		}
		for _, key := range rel.Keys {
			indexes = append(indexes, strconv.FormatUint(uint64(key.Index), 10))
		}
	}
	if len(indexes) == 0 {
		return true, nil
	}
	return f.guard.Yes(ctx, fmt.Sprintf("SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) %d FROM pg_catalog.pg_index"+
		" WHERE indislive AND indexrelid OPERATOR(pg_catalog.=) ANY ('{%s}')", len(indexes), strings.Join(indexes, ",")))
}
