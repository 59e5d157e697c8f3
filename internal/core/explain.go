package core

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/config"
	"github.com/cachedpg/cachedpg/internal/feed"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Explanation is cachedpg.Explanation, which says what each field means.
type Explanation struct {
	Cacheable   bool
	Reason      string
	Detail      string
	Because     string
	Remedy      string
	Kinds       []string
	Key         KeyParts
	Reads       []string
	Invalidates []string
	Asks        bool
	Asking      string
	TTL         string
	ByAge       []string
	Policy      string
	Notes       []string
}

// KeyParts is cachedpg.KeyParts.
type KeyParts struct {
	Text       string
	Database   string
	Role       string
	SearchPath []string
	Settings   map[string]string
	ExecMode   string
	Literals   int
	Arguments  []string
	Digest     string
}

// Explain goes the way of query as far as the lookup, and of exec as far as the
// marking of tags.
func (c *Conn) Explain(ctx context.Context, query string, args []backend.Arg) (*Explanation, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	q, err := c.newCall(ctx, query, args)
	if err != nil {
		return nil, err
	}
	if err := c.plan(ctx, &q); err != nil {
		return nil, err
	}
	var unfed, withheld error
	var fed *feed.Feed
	var doors *store.Doors
	if q.space != nil {
		doors = q.space.Doors()
		fed = q.space.Feed.Load()
		unfed, withheld = fed.Check(ctx), q.space.Peers.Trouble()
	}
	stranger := c.d.StrangerThan(q.space)
	q.space = calm
	l, reason := c.lookup(ctx, &q)
	if q.view == space.NoCatalog {
		if err := c.viewOnly(ctx, &q); err != nil {
			return nil, err
		}
	}
	statements, parseErr := parser.Parse(q.sql, q.text.Literals)
	given, err := q.standIn(statements)
	if err != nil {
		return nil, err
	}
	if again, other := c.lookup(ctx, &q); reason == keying.NoReason || reason == keying.CatalogUnavailable {
		l, reason = again, other
	}
	switch {
	case reason != keying.NoReason:
	case stranger != nil:
		reason = keying.OtherStore
	case withheld != nil:
		reason = keying.OtherWriter
	case fed.LeavesOut(l.tags):
		reason = keying.NotFollowed
	}

	plan := q.text.Plan
	x := &Explanation{
		Cacheable: reason == keying.NoReason, Because: reason.Words(), Remedy: reason.Remedy(),
		Key: q.keyParts(l.key, given), Policy: q.text.Policy,
		Kinds: []string{}, Reads: []string{}, ByAge: []string{}, Invalidates: []string{}, Notes: []string{},
	}
	for _, kind := range plan.Kinds {
		x.Kinds = append(x.Kinds, kind.String())
	}
	if q.text.Off {
		x.Policy = config.StrategyOff
	}
	if x.Cacheable {
		x.TTL = q.ttl(ctx).String()
		q.explainAge(x)
	} else if x.Reason = reason.String(); reason == plan.Reason {
		x.Detail = plan.Detail
	}
	q.explainTags(x)
	q.explainEffects(x, c.tx != nil, l.others)
	c.explainThrough(&q, x)
	c.explainQueue(&q, x)
	if q.view != space.NoCatalog {
		for _, idle := range c.d.Config.IdlePolicies(q.view.Snapshot) {
			x.Notes = append(x.Notes, "A policy has no effect: "+idle+".")
		}
	}
	q.explainText(x, statements, parseErr)
	if x.Cacheable && q.text.Stats.Admission.Out.Load() {
		x.Notes = append(x.Notes, "It is not looked up now, but for samples ("+keying.NoGain.String()+"): "+keying.NoGain.Words()+". "+keying.NoGain.Remedy())
	}
	if names := q.shut(doors); len(names) > 0 {
		x.Notes = append(x.Notes, "Closed to the cache in Redis ("+keying.NoGain.String()+"), because all processes write it much more often than they look it up: "+strings.Join(names, ", ")+
			". It opens when it is looked up about as often; cache_admission=all has it open.")
	}
	if withheld != nil {
		x.Notes = append(x.Notes, "Stats.Peers says: "+space.WithoutName(withheld)+".")
	}
	if unfed != nil {
		x.Notes = append(x.Notes, "Nothing comes from the cache until the write-ahead log can be followed: "+space.WithoutName(unfed)+".")
	}
	for _, p := range c.d.allProblems() {
		x.Notes = append(x.Notes, "Stats.Problems says: "+p.String()+".")
	}
	return x, nil
}

// calm stands in for the space of a database: it is warm, and of no store of
// which there could be trouble to tell.
var calm = func() *space.Space {
	sp := &space.Space{}
	sp.Before.Store(new(space.UnderWay))
	sp.Before.Load().Warm.Store(true)
	return sp
}()

// viewOnly loads the catalog to plan q with, where the driver has none to use:
// the cache is off, PostgreSQL is a replica, or the store does not answer that
// the loading of a catalog is noted in. Others never see it.
func (c *Conn) viewOnly(ctx context.Context, q *call) error {
	if q.session == unknownSession {
		return nil // without its search_path no name means anything
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	if c.inner.TxStatus() != 'I' {
		return nil
	}
	snapshot, err := c.inner.LoadCatalog(ctx, nil)
	switch {
	case err == nil:
		q.view = &space.View{Snapshot: snapshot}
		q.text = c.d.Plan(q.view, q.session, q.sql)
	case c.inner.Closed() || ctx.Err() != nil:
		return err
	}
	return nil // the catalog cannot be had, which is what there is to say
}

// standIn gives q arguments if it has none and wants some. It reports whether
// they are those that the caller gave.
func (q *call) standIn(statements []*parser.Statement) (given bool, err error) {
	params := 0
	for _, s := range statements {
		params = max(params, s.Params)
	}
	switch {
	case len(q.values) == params || len(statements) == 0:
		return true, nil
	case len(q.values) > 0:
		return false, fmt.Errorf("cachedpg: the statement has %s, but %s given", Count(params, "parameter"), Count(len(q.values), "argument"))
	}
	q.values = q.text.Plan.StandIns(params)
	return false, nil
}

// UnknownType is that of arguments which were not given.
const UnknownType = "unknown"

func (q *call) keyParts(key store.Key, given bool) KeyParts {
	k := KeyParts{
		Text: q.text.Stats.Text, SearchPath: []string{}, Settings: map[string]string{}, Arguments: []string{},
		ExecMode: strings.ReplaceAll(q.mode.String(), " ", "_"), Literals: len(q.text.Literals),
	}
	if values := q.session.Values; values != nil {
		k.Database, k.Role = values[0], values[2]
		k.SearchPath = append(k.SearchPath, q.session.Path...)
		for i, name := range append([]string{"", "session_authorization", "", "search_path", "server_version_num"}, keying.Settings...) {
			if name != "" {
				k.Settings[name] = values[i]
			}
		}
	}
	for _, v := range q.values {
		typ := UnknownType
		if given {
			typ = fmt.Sprintf("%T", v.Value)
		}
		k.Arguments = append(k.Arguments, typ)
	}
	if given && key != (store.Key{}) {
		k.Digest = hex.EncodeToString(key[:])
	}
	return k
}

// explainAge says what only the age of the entry bounds.
func (q *call) explainAge(x *Explanation) {
	moments := q.text.Plan.Momentary
	if _, _, reason := q.text.Plan.Key(&q.session.Digests[q.mode], q.keyingValues(), nil); reason != keying.NoReason {
		moments = append(slices.Clone(moments), keying.Moment{Reason: reason})
	}
	for _, m := range moments {
		x.ByAge = append(x.ByAge, Naming(m.Reason.String(), m.Detail))
	}
	for _, oid := range q.text.Aged {
		if rel := q.view.Snapshot.ByOID(oid); rel != nil {
			x.ByAge = append(x.ByAge, "table "+rel.Schema+"."+rel.Name)
		}
	}
}

// explainTags says what the statement depends on and what it invalidates.
func (q *call) explainTags(x *Explanation) {
	plan, values := q.text.Plan, q.keyingValues()
	if plan.Reason == keying.NoReason || x.Cacheable {
		l := lookup{}
		l.tags, l.always, l.rows = plan.ReadTags(nil, values)
		l.byAge(q.text.Aged, 0)
		tags, always, rows := l.tags, l.always, l.rows
		for i, t := range tags {
			words := plan.TagWords(t, values, q.view.Snapshot)
			switch {
			case i < always:
			case rows > 1:
				words += fmt.Sprintf(", if fewer than %d rows are found", rows)
			default:
				words += ", if no row is found"
			}
			if !slices.Contains(x.Reads, words) { // several literals are one word
				x.Reads = append(x.Reads, words)
			}
		}
	}
	if !plan.Writes {
		return
	}
	for _, t := range plan.WriteTags(nil, values) {
		if t.Part != 0 {
			continue // what is about some columns is named with what is about all
		}
		words := plan.TagWords(t, values, q.view.Snapshot)
		if t.Kind == store.TagSchema {
			words = "everything"
		}
		if !slices.Contains(x.Invalidates, words) {
			x.Invalidates = append(x.Invalidates, words)
		}
	}
}

// explainEffects says what running the statement does beside that.
func (q *call) explainEffects(x *Explanation, inTx, others bool) {
	plan := q.text.Plan
	if x.Asks = plan.Asks && !plan.Opaque; x.Asks {
		x.Asking = "PostgreSQL is asked before COMMIT which tables the code that it runs has written: triggers, rules, functions"
		if !inTx && !q.canWrap() {
			x.Asking += "; where that cannot be asked, outside of a transaction, everything is invalidated"
		}
	}
	note := func(when bool, text string) {
		if when {
			x.Notes = append(x.Notes, text)
		}
	}
	if r := plan.Returning(); r != nil {
		note(true, "It is made to return values of its rows, unseen by the caller, for which it reads "+strings.Join(r.Columns, ", ")+": results with other values stay, if the role may SELECT these columns and few rows change.")
	}
	momentary := x.Reason == plan.Reason.String() && plan.Lasting == keying.NoReason
	note(momentary && inTx, "In a transaction what is of its moment is not cached, whatever the ttl.")
	note(momentary && !inTx, "Where its answer may be old, a comment such as /* cachedpg: ttl=5s */ has it cached by age.")
	note(others, "The transaction has changed other rows: only a result with rows may come from the cache.")
	note(q.text.Has(parser.Commit), "It ends the transaction: what that has written is invalidated.")
	note(q.text.Has(parser.PrepareTransaction), "What the transaction has written is not cached until COMMIT PREPARED or ROLLBACK PREPARED.")
	note(plan.Catalog, "It may change the schema: every statement is planned anew after it.")
	note(plan.Session && plan.Sets != nil, "It changes the session's settings: what is read after it has entries of its own.")
	note(plan.Temporary != nil, "It changes temporary objects, which concerns this session alone.")
	note(plan.Session && plan.Sets == nil && plan.Temporary == nil, "It may change the session's settings: they are read again after it.")
	note(plan.Unknown && plan.Writes, "It names something that is not in the schema.")
}

// explainText says what the text alone does not: which tables are behind its
// views, or why it was not understood.
func (q *call) explainText(x *Explanation, statements []*parser.Statement, parseErr error) {
	note := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(x.Notes, text) {
			x.Notes = append(x.Notes, text)
		}
	}
	switch {
	case q.session != unknownSession && !q.session.StandardText:
		note("standard_conforming_strings is off: texts then mean something else, and none is understood.")
		return
	case q.session.StandardText && !q.session.Reads(q.sql):
		note("Of the session's client_encoding only ASCII is understood; what is written otherwise is best passed as an argument.")
		return
	case parseErr != nil:
		note("The parser, that of PostgreSQL 16, says: %s. PostgreSQL judges for itself when the statement is sent.",
			space.WithoutName(parseErr))
	}
	if scanned, ok := parser.Scan(q.sql); ok && scanned.Hints.Err != "" {
		problem, _, _ := strings.Cut(strings.TrimPrefix(scanned.Hints.Err, "cachedpg: "), " \"") // what stands there may be anything
		note("The hint is not understood, so that the query always runs: %s.", problem)
	}
	for _, s := range statements {
		relations := slices.Clone(s.Reads)
		for _, w := range s.Writes {
			relations = append(relations, w.Target)
		}
		for _, r := range relations {
			rel := q.view.Snapshot.Resolve(q.session.Path, r.Schema, r.Name.Name)
			if rel == nil || rel.Kind != 'v' || rel.System {
				continue
			}
			if tables := q.tablesOf(rel.Schema, rel.Name); len(tables) > 0 {
				note("View %s.%s reads %s.", rel.Schema, rel.Name, strings.Join(tables, ", "))
			}
		}
	}
}

// tablesOf names the tables that a relation consists of, as a read of it is planned.
func (q *call) tablesOf(relation ...string) (tables []string) {
	text := "TABLE " + pgx.Identifier(relation).Sanitize()
	statements, err := parser.Parse(text, nil)
	if err != nil {
		return nil
	}
	for _, oid := range keying.New(text, statements, q.view.Snapshot, q.session.Path).Reads() {
		if rel := q.view.Snapshot.ByOID(oid); rel != nil && rel.Kind != 'v' {
			tables = append(tables, rel.Schema+"."+rel.Name)
		}
	}
	return tables
}

// shut names the relations that the text reads and that are closed to the cache, see space.Doorkeeper.
func (q *call) shut(doors *store.Doors) (names []string) {
	for _, oid := range q.text.Plan.Reads() {
		if rel := q.view.Snapshot.ByOID(oid); rel != nil && doors.Of(oid) != store.Open {
			names = append(names, rel.Schema+"."+rel.Name)
		}
	}
	return names
}
