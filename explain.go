package cachedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

// Explanation says what the driver does with a statement, for people and, by
// its JSON form, for programs. No argument and no literal of the statement is in it.
type Explanation struct {
	// Cacheable says that a Query may be answered from the cache.
	Cacheable bool `json:"cacheable"`

	// Reason is why not: the name of a keying.Reason, under which Stats.Bypasses
	// counts it; "" for what is cacheable. Detail is the name of the relation,
	// function, operator, type or keyword that led to it, if there is one.
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
	Because string `json:"because"` // the reason in words
	Remedy  string `json:"remedy"`  // what can be done about it

	Kinds []string `json:"kinds"` // of the statements in the text: select, insert, ddl, …
	Key   KeyParts `json:"key"`

	// Reads are the tags that the result depends on. It is empty where the
	// statement itself is why it is not cached.
	Reads []string `json:"reads"`

	// Invalidates are the tags that running the statement invalidates:
	// "everything" where they are not known before it runs, or it changes the schema.
	Invalidates []string `json:"invalidates"`

	// Asks says that more is invalidated than the text tells: PostgreSQL is
	// asked before COMMIT. Asking says it in words.
	Asks   bool   `json:"asks"`
	Asking string `json:"asking"`

	// TTL is the longest life of an entry, written as a time.Duration; "" for
	// what is not cacheable.
	TTL string `json:"ttl"`

	// ByAge names what only that bounds, and no write: the relations of strategy
	// "ttl", or the reason that a ttl in the query or the context excuses.
	ByAge []string `json:"by_age"`

	Policy string `json:"policy"` // the Strategy of its relations; if they differ, the last in Policy's list

	Notes []string `json:"notes"` // what else is worth knowing, a sentence each
}

// KeyParts are what identifies a result in the cache.
type KeyParts struct {
	Text       string            `json:"text"` // normalised: comments out, literals replaced
	Database   string            `json:"database"`
	Role       string            `json:"role"`
	SearchPath []string          `json:"search_path"` // the effective one
	Settings   map[string]string `json:"settings"`    // those that change results
	ExecMode   string            `json:"exec_mode"`   // as default_query_exec_mode names it
	Literals   int               `json:"literals"`    // their number
	Arguments  []string          `json:"arguments"`   // their Go types; "unknown" for those not given

	// Digest is the key in hexadecimal digits; "" for what is not cacheable,
	// and without arguments where the statement has parameters.
	Digest string `json:"digest"`
}

// Explain says what the driver would do with a statement on a connection of
// db, without running it. It takes the same arguments as Query. Without any, for
// a statement with parameters, it speaks of arguments that fit: then rows are
// named by parameter all the same.
//
// What passes by itself is left out: whether the result is in the cache now, a
// store that cannot be reached, a cache that is still warming up, a commit
// that is under way. What does not, another process that writes past the cache, is
// told as far as it has been seen. So is what only the result can tell (TooLarge).
//
// It may be called at any time, and asks PostgreSQL for what the driver would
// have to ask. Its errors are those of connecting, and of calling it wrongly.
func Explain(ctx context.Context, db Database, query string, args ...any) (x *Explanation, err error) {
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
		if named, ok := arg.(sql.NamedArg); ok {
			values[i].Name, values[i].Value = named.Name, named.Value
		}
	}
	err = withConn(ctx, db, func(c *Conn) (err error) {
		x, err = c.explain(ctx, query, values)
		return err
	})
	return x, err
}

// explain goes the way of query as far as the lookup, and of exec as far as the
// marking of tags.
func (c *Conn) explain(ctx context.Context, query string, args []driver.NamedValue) (*Explanation, error) {
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
	var fed *feed
	var doors *store.Doors
	if q.space != nil {
		doors = q.space.doors()
		fed = q.space.feed.Load()
		unfed, withheld = fed.check(ctx), q.space.peers.trouble()
	}
	stranger := c.d.strangerThan(q.space)
	q.space = calm
	l, reason := c.lookup(ctx, &q)
	if q.view == noCatalog {
		if err := c.viewOnly(ctx, &q); err != nil {
			return nil, err
		}
	}
	statements, parseErr := parser.Parse(q.sql, q.text.literals)
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
	case fed.leavesOut(l.tags):
		reason = keying.NotFollowed
	}

	plan := q.text.plan
	x := &Explanation{
		Cacheable: reason == keying.NoReason, Because: reason.Words(), Remedy: reason.Remedy(),
		Key: q.keyParts(l.key, given), Policy: q.text.policy,
		Kinds: []string{}, Reads: []string{}, ByAge: []string{}, Invalidates: []string{}, Notes: []string{},
	}
	for _, kind := range plan.Kinds {
		x.Kinds = append(x.Kinds, kind.String())
	}
	if q.text.off {
		x.Policy = strategyOff
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
	if q.view != noCatalog {
		for _, idle := range c.d.config.idlePolicies(q.view.snapshot) {
			x.Notes = append(x.Notes, "A policy has no effect: "+idle+".")
		}
	}
	q.explainText(x, statements, parseErr)
	if x.Cacheable && q.text.stats.admission.out.Load() {
		x.Notes = append(x.Notes, "It is not looked up now, but for samples ("+keying.NoGain.String()+"): "+keying.NoGain.Words()+". "+keying.NoGain.Remedy())
	}
	if names := q.shut(doors); len(names) > 0 {
		x.Notes = append(x.Notes, "Closed to the cache in Redis ("+keying.NoGain.String()+"), because all processes write it much more often than they look it up: "+strings.Join(names, ", ")+
			". It opens when it is looked up about as often; cache_admission=all has it open.")
	}
	if withheld != nil {
		x.Notes = append(x.Notes, "Stats.Peers says: "+withoutName(withheld)+".")
	}
	if unfed != nil {
		x.Notes = append(x.Notes, "Nothing comes from the cache until the write-ahead log can be followed: "+withoutName(unfed)+".")
	}
	for _, p := range c.d.allProblems() {
		x.Notes = append(x.Notes, "Stats.Problems says: "+p.String()+".")
	}
	return x, nil
}

// calm stands in for the space of a database: it is warm, and of no store of
// which there could be trouble to tell.
var calm = func() *space {
	sp := &space{}
	sp.before.Store(new(underWay))
	sp.before.Load().warm.Store(true)
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
		q.view = &view{snapshot: snapshot}
		q.text = c.d.plan(q.view, q.session, q.sql)
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
		return false, fmt.Errorf("cachedpg: the statement has %s, but %s given", count(params, "parameter"), count(len(q.values), "argument"))
	}
	q.values = q.text.plan.StandIns(params)
	return false, nil
}

// unknownType is that of arguments which were not given.
const unknownType = "unknown"

func (q *call) keyParts(key store.Key, given bool) KeyParts {
	k := KeyParts{
		Text: q.text.stats.text, SearchPath: []string{}, Settings: map[string]string{}, Arguments: []string{},
		ExecMode: strings.ReplaceAll(q.mode.String(), " ", "_"), Literals: len(q.text.literals),
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
		typ := unknownType
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
	moments := q.text.plan.Momentary
	if _, _, reason := q.text.plan.Key(&q.session.Digests[q.mode], q.keyingValues(), nil); reason != keying.NoReason {
		moments = append(slices.Clone(moments), keying.Moment{Reason: reason})
	}
	for _, m := range moments {
		x.ByAge = append(x.ByAge, reasonWith(m.Reason.String(), m.Detail))
	}
	for _, oid := range q.text.aged {
		if rel := q.view.snapshot.ByOID(oid); rel != nil {
			x.ByAge = append(x.ByAge, "table "+rel.Schema+"."+rel.Name)
		}
	}
}

// explainTags says what the statement depends on and what it invalidates.
func (q *call) explainTags(x *Explanation) {
	plan, values := q.text.plan, q.keyingValues()
	if plan.Reason == keying.NoReason || x.Cacheable {
		l := lookup{}
		l.tags, l.always, l.rows = plan.ReadTags(nil, values)
		l.byAge(q.text.aged, 0)
		tags, always, rows := l.tags, l.always, l.rows
		for i, t := range tags {
			words := plan.TagWords(t, values, q.view.snapshot)
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
		words := plan.TagWords(t, values, q.view.snapshot)
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
	plan := q.text.plan
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
	momentary := x.Reason == plan.Reason.String() && plan.Lasting == keying.NoReason
	note(momentary && inTx, "In a transaction what is of its moment is not cached, whatever the ttl.")
	note(momentary && !inTx, "Where its answer may be old, a comment such as /* cachedpg: ttl=5s */ has it cached by age.")
	note(others, "The transaction has changed other rows: only a result with rows may come from the cache.")
	note(q.text.has(parser.Commit), "It ends the transaction: what that has written is invalidated.")
	note(q.text.has(parser.PrepareTransaction), "What the transaction has written is not cached until COMMIT PREPARED or ROLLBACK PREPARED.")
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
			withoutName(parseErr))
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
			rel := q.view.snapshot.Resolve(q.session.Path, r.Schema, r.Name.Name)
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
	for _, oid := range keying.New(text, statements, q.view.snapshot, q.session.Path).Reads() {
		if rel := q.view.snapshot.ByOID(oid); rel != nil && rel.Kind != 'v' {
			tables = append(tables, rel.Schema+"."+rel.Name)
		}
	}
	return tables
}

// shut names the relations that the text reads and that are closed to the cache, see doors.go.
func (q *call) shut(doors *store.Doors) (names []string) {
	for _, oid := range q.text.plan.Reads() {
		if rel := q.view.snapshot.ByOID(oid); rel != nil && doors.Of(oid) != store.Open {
			names = append(names, rel.Schema+"."+rel.Name)
		}
	}
	return names
}
