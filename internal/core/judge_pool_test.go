package core

import (
	"database/sql/driver"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/catalog"
	"github.com/cachedpg/cachedpg/internal/harness"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// read judges a SELECT that may be answered from the cache.
func (j *judge) read(q *call) error {
	j.tally[nReads]++
	status := j.c.inner.TxStatus()
	if status == 'E' {
		_, err := j.transcript(spoken{j.c}, q.sql, q.args)
		return err
	}
	var want []string
	var wantErr error
	if status == 'I' {
		want, wantErr = j.rehearse(q.sql, q.args, func() { j.depends(q) })
	} else {
		want, wantErr = j.aside(q)
	}
	for _, met := range []string{"first", "second"} {
		hits := j.c.d.stats.hits.Load()
		var got []string
		var err error
		if status == 'T' && wantErr != nil { // the transaction goes on only behind a savepoint of the script
			got, err = j.transcript(spoken{j.c}, q.sql, q.args)
			j.same(q, met, got, want)
			return err
		}
		misses := j.c.d.stats.misses.Load()
		got, err = j.transcript(spoken{j.c}, q.sql, q.args)
		switch {
		case j.c.d.stats.hits.Load() > hits:
			j.tally[nCached]++
		case j.c.d.stats.misses.Load() == misses:
			j.tally[nBypassed]++
		}
		j.same(q, met, got, want)
		if err != nil {
			return err
		}
	}
	if status == 'I' {
		j.remember(q)
	}
	return wantErr
}

// same reports a difference, unless plain pgx gives one by itself.
func (j *judge) same(q *call, which string, got, want []string) {
	j.Helper()
	if j.equal(q.sql, got, want) {
		return
	}
	if j.c.inner.TxStatus() == 'I' {
		if again, _ := j.plainly(j.c, q.sql, q.args); !j.equal(q.sql, again, want) {
			j.tally[nSkipped]++
			return
		}
	}
	j.defect("the %s time through the driver:\n%s\nin: %s %v", which, different(got, want), q.sql, values(q.args))
}

// equal compares transcripts. Where the text does not say in which order rows
// come it is the planner that does, by settings and statistics of the moment.
func (j *judge) equal(query string, a, b []string) bool {
	if !slices.Equal(a, b) && (j.unordered || !strings.Contains(strings.ToLower(query), "order by")) {
		a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	}
	return slices.Equal(a, b)
}

func different(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("got   %s\nplain %s", g, w)
		}
	}
	return "no difference"
}

// aside runs a text past the driver inside the open transaction and undoes it.
func (j *judge) aside(q *call) (lines []string, err error) {
	if err := j.command("SAVEPOINT judge"); err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	lines, err = j.transcript(j.c.inner, q.sql, q.args)
	if err := j.command("ROLLBACK TO judge"); err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	if err := j.command("RELEASE judge"); err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	return lines, err
}

// depends: the relations that a SELECT has locked, or relations above them, are
// among those of its tags.
func (j *judge) depends(q *call) {
	j.Helper()
	tags, _, _ := q.text.Plan.ReadTags(nil, q.keyingValues())
	on := make(map[uint32]bool)
	for _, t := range tags {
		if t.Kind != store.TagSchema {
			on[t.Relation] = true
		}
	}
	var parents map[uint32][]uint32
	for _, l := range j.locks("AccessShare") {
		if !strings.Contains("rpmf", l.kind) || on[l.oid] {
			continue
		}
		if parents == nil {
			parents = j.ancestors()
		}
		below := func(oid uint32) bool { return slices.Contains(parents[oid], l.oid) }
		if l.kind == "p" && slices.ContainsFunc(slices.Collect(maps.Keys(on)), below) {
			continue // for the bounds of a partition; it has no rows itself
		}
		if !slices.ContainsFunc(parents[l.oid], func(oid uint32) bool { return on[oid] }) {
			j.defect("read %s, and the result depends only on %v\nin: %s %v", l.name, tagNames(tags, q.view), q.sql, values(q.args))
		}
	}
}

// remember puts a SELECT of the script into the pool.
func (j *judge) remember(q *call) {
	e := &entry{sql: q.sql, args: q.args}
	if j.seen[e.name()] {
		return
	}
	j.seen[e.name()] = true
	j.selects = append(j.selects, e)
	if len(j.selects) > j.keep {
		delete(j.seen, j.selects[0].name())
		j.selects = slices.Delete(j.selects, 0, 1)
	}
}

// name tells entries apart.
func (e *entry) name() string { return fmt.Sprint(e.sql, values(e.args)) }

// warm fills the cache with the pool.
func (j *judge) warm() {
	j.Helper()
	if status := j.other.inner.TxStatus(); status != 'I' {
		j.Fatalf("%s: the session that asks is in state %c", j.where, status)
	}
	if sp := j.c.d.space(); sp.Keeper != nil {
		poll(j, "the release of what was committed", func() bool { return sp.Writes.Stats().Pending == 0 })
	}
	j.contents, j.made = nil, nil
	if j.rows {
		j.look()
	}
	j.pool = j.pool[:0]
	for _, e := range slices.Concat(j.selects, j.made) {
		if j.unread(e) {
			continue // not even asked: it may be a view that calls a function which writes
		}
		hits, misses := j.other.d.stats.hits.Load(), j.other.d.stats.misses.Load()
		lines, err := j.transcript(spoken{j.other}, e.sql, e.args)
		if err != nil || j.other.d.stats.hits.Load() == hits && j.other.d.stats.misses.Load() == misses {
			continue // not cached, now
		}
		e.answer = lines
		j.pool = append(j.pool, e)
	}
}

// unread reports that the driver would not look an entry up.
func (j *judge) unread(e *entry) bool {
	ctx, cancel := j.context()
	defer cancel()
	known, err := j.other.state(ctx)
	if err != nil || known.session == nil || known.view == nil {
		j.Fatalf("%s: nothing is known of the session (%v)", j.where, err)
	}
	return j.other.d.Plan(known.view, known.session, e.sql).Plan.Reason != keying.NoReason
}

// verify asks the pool again: what is still a hit is as PostgreSQL says now.
func (j *judge) verify() {
	j.Helper()
	for _, e := range j.pool {
		j.tally[nQuestions]++
		hits := j.other.d.stats.hits.Load()
		lines, err := j.transcript(spoken{j.other}, e.sql, e.args)
		e.hit = j.other.d.stats.hits.Load() > hits
		e.same = err == nil && j.equal(e.sql, lines, e.answer)
		if e.hit {
			if truth, _ := j.plainly(j.other, e.sql, e.args); !j.equal(e.sql, lines, truth) {
				j.defect("stale: %s\nin: %s %v", different(lines, truth), e.sql, values(e.args))
				e.same = false
			}
		} else {
			j.tally[nFell]++
		}
		if e.same {
			j.tally[nUnchanged]++
			if e.hit {
				j.tally[nKept]++
			}
		}
		e.answer = lines
	}
}

func values(args []driver.NamedValue) (list []string) {
	for _, a := range args {
		list = append(list, harness.Describe(a.Value))
	}
	return list
}

// contents are the rows of one table, without those of its children.
type contents struct {
	rel     *catalog.Relation
	columns []string
	rows    []tableRow
}

type tableRow struct {
	text   string // the whole row
	values []driver.Value
}

const (
	maxContents = 500 // rows of a table that are compared
	maxByKey    = 4   // rows of a table that are asked for by each key
)

// look reads every table, and makes SELECTs of what there is.
func (j *judge) look() {
	j.contents = make(map[uint32]*contents)
	ctx, cancel := j.context()
	defer cancel()
	known, err := j.other.state(ctx)
	if err != nil || known.view == nil {
		j.Fatalf("%s: no catalog (%v)", j.where, err)
	}
	relations := slices.Collect(known.view.Snapshot.Relations())
	slices.Reverse(relations)
	for _, rel := range relations {
		if j.newest > 0 && len(j.made) >= j.newest {
			break
		}
		if rel.System || rel.Temporary || !strings.Contains("rmpv", string(rel.Kind)) {
			continue
		}
		name := pgx.Identifier{rel.Schema, rel.Name}.Sanitize()
		j.made = append(j.made, &entry{sql: "SELECT * FROM " + name, relation: rel.Name})
		if rel.Kind == 'r' || rel.Kind == 'm' {
			if c := j.readAll(rel); c != nil {
				j.contents[rel.OID] = c
			}
		}
	}
	for _, c := range j.contents {
		j.byKey(c, c.rel)
		for _, oid := range known.view.Snapshot.Ancestors(c.rel.OID) {
			if rel := known.view.Snapshot.ByOID(oid); rel != nil {
				j.byKey(c, rel)
			}
		}
	}
	slices.SortStableFunc(j.made, func(a, b *entry) int { return strings.Compare(a.sql, b.sql) })
}

// readAll reads a table; nil if it is gone or large.
func (j *judge) readAll(rel *catalog.Relation) *contents {
	ctx, cancel := j.context()
	defer cancel()
	names, rows, err := plain(ctx, j.other, fmt.Sprintf("SELECT t.*, (t.*)::text FROM ONLY %s t LIMIT %d",
		pgx.Identifier{rel.Schema, rel.Name}.Sanitize(), maxContents+1))
	if err != nil || len(rows) > maxContents {
		return nil
	}
	c := &contents{rel: rel, columns: names[:len(names)-1]}
	for _, row := range rows {
		last := len(row) - 1
		c.rows = append(c.rows, tableRow{text: fmt.Sprint(row[last]), values: row[:last]})
	}
	return c
}

// byKey makes SELECTs by the keys of rel, which is c's relation or one above it.
func (j *judge) byKey(c *contents, rel *catalog.Relation) {
	for i := range min(len(c.rows), maxByKey) {
		for _, k := range rel.Keys {
			if e := selectByKey(c, rel, k, c.rows[i]); e != nil {
				j.made = append(j.made, e)
			}
		}
	}
}

// selectByKey is the SELECT of one row; nil if a column of the key is NULL.
func selectByKey(c *contents, rel *catalog.Relation, k catalog.Key, row tableRow) *entry {
	e := &entry{relation: rel.Name, key: k.Primary}
	var where []string
	for _, column := range k.Columns {
		name := rel.Columns[column].Name
		at := slices.Index(c.columns, name)
		if at < 0 || row.values[at] == nil {
			return nil
		}
		e.args = append(e.args, driver.NamedValue{Ordinal: len(where) + 1, Value: row.values[at]})
		where = append(where, fmt.Sprintf("%s = $%d", pgx.Identifier{name}.Sanitize(), len(where)+1))
	}
	e.sql = "SELECT * FROM " + pgx.Identifier{rel.Schema, rel.Name}.Sanitize() + " WHERE " + strings.Join(where, " AND ")
	return e
}

// compareRows: whoever has cached a row that is changed or gone now, by any of
// its keys, depends on one of tags.
func (j *judge) compareRows(tags []store.Tag) {
	j.Helper()
	marked := make(map[store.Tag]bool)
	for _, t := range tags {
		marked[t] = true
	}
	if marked[store.Tag{Kind: store.TagSchema}] {
		return
	}
	for oid, before := range j.contents {
		after := j.readAll(before.rel)
		if after == nil {
			continue
		}
		left := make(map[string]int)
		for _, row := range after.rows {
			left[row.text]++
		}
		snapshot := j.other.known.view.Snapshot
		for _, row := range before.rows {
			if left[row.text]--; left[row.text] >= 0 {
				continue
			}
			j.tally[nChangedRows]++
			for _, oid := range append(snapshot.Ancestors(oid), oid) {
				rel := snapshot.ByOID(oid)
				for _, k := range rel.Keys {
					e := selectByKey(before, rel, k, row)
					if e == nil {
						continue
					}
					if depends := j.tagsOf(e); depends != nil && !slices.ContainsFunc(depends, func(t store.Tag) bool { return marked[t] }) {
						j.defect("changed the row %s of %s, which %s %v shows; it depends on %v, and %v is invalidated", row.text, before.rel.Name,
							e.sql, values(e.args), tagNames(depends, j.other.known.view), tagNames(tags, j.other.known.view))
					}
				}
			}
		}
	}
}

// tagsOf are the tags of an entry with rows; none if it cannot be cached.
func (j *judge) tagsOf(e *entry) []store.Tag {
	p := j.other.d.Plan(j.other.known.view, j.other.known.session, e.sql)
	if p.Plan.Reason != keying.NoReason {
		return nil
	}
	tags, always, _ := p.Plan.ReadTags(nil, keying.Values{Args: e.args, Literals: p.Literals})
	return tags[:always]
}
