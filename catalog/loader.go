package catalog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// loader collects the rows of one load. Rows come in any order, so everything
// that joins two of them waits for contents.
type loader struct {
	relations []*Relation
	byOID     map[uint32]*Relation
	columns   map[uint32][]Column
	functions []Function
	operators []operator
	types     []typ

	keys       []keyRow
	inherits   [][2]uint32        // child, parent
	partitions map[uint32][]int16 // columns of partition keys
	references []referenceRow
	code       []codeRow
	triggers   []triggerRow // rules, too
	deferrable bool         // a user's constraint trigger is
	outward    bool         // see Snapshot.Outward
	events     bool         // see Snapshot.EventTriggers
	sources    [][2]uint32  // view, relation
	aggregates [][2]uint32  // aggregate or function, what it calls beside its text
	operands   [][2]uint32  // function, type of an argument or of the result
	typeCode   []codeRow
	casts      [][3]uint32 // source, target, function
	views      map[uint32]string
	bodies     map[uint32]string // of functions that PostgreSQL keeps parsed

	incomplete bool
	schemas    schemaSum
	digest     digester
	interned   map[string]string
	err        error
}

type (
	operator struct {
		oid, function uint32
		Operator
	}
	typ struct {
		relation uint32 // of a composite type
		Type
	}
	keyRow struct {
		relation uint32
		numbers  []int16
		Key
	}
	referenceRow struct {
		relation uint32
		numbers  []int16
		Reference
	}
	triggerRow struct {
		relation uint32
		numbers  []int16
		Code
	}
	codeRow struct {
		of     uint32 // relation or type
		kind   byte   // what runs: 'p' function, 'o' operator, 't' code of a type
		object uint32
		on     Commands
	}
)

func newLoader() *loader {
	return &loader{
		byOID:      make(map[uint32]*Relation),
		columns:    make(map[uint32][]Column),
		views:      make(map[uint32]string),
		partitions: make(map[uint32][]int16),
		bodies:     make(map[uint32]string),
		interned:   make(map[string]string),
	}
}

// fact takes one row of facts; see parts for its columns.
func (l *loader) fact(v [][]byte) {
	kind, v := string(v[0]), v[1:]
	l.digest.add(kind, v)
	switch kind {
	case kindRelation:
		schema := l.text(v[1])
		l.relations = append(l.relations, &Relation{
			OID: l.oid(v[0]), Schema: schema, Name: l.text(v[2]), Kind: char(v[3]),
			Temporary: char(v[4]) == 't', Unlogged: char(v[4]) == 'u', RowSecurity: l.bool(v[5]),
			System: schema == "pg_catalog" || schema == "information_schema",
		})
	case kindColumn:
		relation := l.oid(v[0])
		l.columns[relation] = append(l.columns[relation], Column{
			Name: l.text(v[1]), Number: l.int16(v[2]), Type: l.oid(v[3]),
			Deterministic: l.bool(v[4]), Generated: char(v[5]),
		})
	case kindKey:
		l.keys = append(l.keys, keyRow{l.oid(v[1]), l.numbers(v[4]),
			Key{Index: l.oid(v[0]), Primary: l.bool(v[2]), Deferrable: l.bool(v[3]), Rivalled: l.bool(v[5])}})
	case kindInherit:
		l.inherits = append(l.inherits, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindPartition:
		l.partitions[l.oid(v[0])] = l.numbers(v[1])
	case kindEvent:
		l.events = true
	case kindReference:
		l.references = append(l.references, referenceRow{l.oid(v[0]), l.numbers(v[2]),
			Reference{Table: l.oid(v[1]), OnDelete: l.bool(v[3]), OnUpdate: l.bool(v[4])}})
	case kindTrigger:
		t := triggerRow{l.oid(v[0]), nil, Code{Function: l.oid(v[1]), Trigger: true}}
		t.On, t.Row = triggerCommands(l.int16(v[2]))
		if len(v[4]) > 0 {
			t.numbers = l.numbers(v[4])
		}
		t.Deferrable = l.bool(v[3])
		l.deferrable = l.deferrable || t.Deferrable
		l.triggers = append(l.triggers, t)
	case kindRule:
		l.triggers = append(l.triggers, triggerRow{l.oid(v[0]), nil, Code{On: ruleCommands(char(v[1]))}})
	case kindCode:
		l.code = append(l.code, codeRow{l.oid(v[0]), char(v[1]), l.oid(v[2]), codeCommands(char(v[3]))})
	case kindSource:
		l.sources = append(l.sources, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindFunction:
		l.function(v)
	case kindAggregate:
		l.aggregates = append(l.aggregates, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindOperand:
		l.operands = append(l.operands, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindOperator:
		l.operators = append(l.operators, operator{l.oid(v[0]), l.oid(v[5]), Operator{
			Schema: l.text(v[1]), Name: l.text(v[2]), Left: l.oid(v[3]), Right: l.oid(v[4])}})
	case kindType:
		t := Type{OID: l.oid(v[0]), Schema: l.text(v[1]), Name: l.text(v[2]), Kind: char(v[3]),
			Base: l.oid(v[4]), Element: l.oid(v[5])}
		t.Builtin = builtin(t.OID, t.Schema)
		t.Reg = t.Builtin && strings.HasPrefix(t.Name, "reg")
		l.types = append(l.types, typ{l.oid(v[6]), t})
	case kindTypeCode:
		l.typeCode = append(l.typeCode, codeRow{of: l.oid(v[0]), kind: char(v[1]), object: l.oid(v[2])})
	case kindCast:
		l.casts = append(l.casts, [3]uint32{l.oid(v[0]), l.oid(v[1]), l.oid(v[2])})
	case kindVersion:
		if string(v[1]) == "pg_namespace" {
			l.schemas.add(l.oid(v[2]), l.oid(v[3]))
		}
	default:
		l.fail("kind", []byte(kind))
	}
}

func (l *loader) function(v [][]byte) {
	f := Function{
		OID: l.oid(v[0]), Schema: l.text(v[1]), Name: l.text(v[2]), Volatility: char(v[3]),
		Aggregate: char(v[4]) == 'a', Window: char(v[4]) == 'w', Procedure: char(v[4]) == 'p', SetReturning: l.bool(v[5]),
		MinArgs: l.int16(v[6]), MaxArgs: l.int16(v[7]),
	}
	f.Builtin = builtin(f.OID, f.Schema)
	// What initdb puts outside pg_catalog is not Builtin, but it writes nothing.
	if f.OID >= firstUserOID {
		f.Language, f.Source = l.text(v[8]), string(v[11])
		f.Definer = l.bool(v[12])
		f.SearchPath, f.SetsPath = string(v[13]), v[13] != nil
		reach := reachOf(f.Language, l.bool(v[9]), string(v[10]))
		if f.Volatility == 'v' && reach > nowhere || f.Volatility == 's' && reach > nowhere && (f.Language != "c" || reach == within) {
			f.Writers = []uint32{f.OID}
		}
		l.outward = l.outward || f.Volatility == 'v' && reach == outside
	}
	l.functions = append(l.functions, f)
}

// view takes one row of views. What was dropped meanwhile has no definition.
func (l *loader) view(v [][]byte) {
	switch text := v[2]; {
	case text == nil:
	case string(v[0]) == kindFunction:
		l.bodies[l.oid(v[1])] = string(text)
	default:
		l.views[l.oid(v[1])] = string(text)
	}
}

// deparsed gives the functions that PostgreSQL keeps parsed the texts that it
// makes of them, in which names are qualified as in those of views.
func (l *loader) deparsed() {
	for i := range l.functions {
		f := &l.functions[i]
		text, ok := l.bodies[f.OID]
		if !ok {
			continue
		}
		text = strings.TrimSpace(text)
		if body, ok := strings.CutPrefix(text, "BEGIN ATOMIC"); ok {
			text = strings.TrimSuffix(body, "END")
		} else if expression, ok := strings.CutPrefix(text, "RETURN "); ok {
			text = "SELECT " + expression
		} else {
			continue
		}
		f.Source, f.Deparsed = text, true
	}
}

func builtin(oid uint32, schema string) bool {
	return oid < firstUserOID && schema == "pg_catalog"
}

// reach is what a function can change.
type reach uint8

const (
	nowhere reach = iota
	within        // tables, in the transaction that calls it
	outside       // tables, also over a connection of its own
)

// reachOf judges by the language. Functions in C, and in languages that only
// superusers may write in, can open connections.
func reachOf(language string, trusted bool, extension string) reach {
	switch {
	case language == "internal" || language == "c" && harmless[extension]:
		return nowhere
	case trusted || language == "c" && domestic[extension]:
		return within
	}
	return outside
}

// harmless are extensions none of whose C functions changes a table; without
// them a default of uuid_generate_v4() would count as code that may.
var harmless = set("amcheck autoinc bloom btree_gin btree_gist citext cube dict_int dict_xsyn earthdistance file_fdw",
	"fuzzystrmatch hstore insert_username intagg intarray isn lo ltree moddatetime pageinspect pg_buffercache",
	"pg_freespacemap pg_prewarm pg_stat_statements pg_trgm pg_visibility pg_walinspect pgcrypto pgrowlocks pgstattuple",
	"plperl plpgsql pltcl postgis postgres_fdw seg sslinfo tcn tsm_system_rows tsm_system_time unaccent uuid-ossp vector")

// domestic are extensions whose C functions run SQL in the transaction alone.
var domestic = set("refint tablefunc xml2")

func set(lines ...string) map[string]bool {
	m := make(map[string]bool)
	for _, line := range lines {
		for _, word := range strings.Fields(line) {
			m[word] = true
		}
	}
	return m
}

// The bits of pg_trigger.tgtype, from PostgreSQL's catalog/pg_trigger.h.
const (
	tgRow      = 1 << 0
	tgBefore   = 1 << 1
	tgInsert   = 1 << 2
	tgDelete   = 1 << 3
	tgUpdate   = 1 << 4
	tgTruncate = 1 << 5
)

// triggerCommands tells when a trigger runs, and whether it does so before a
// row is written.
func triggerCommands(tgtype int16) (c Commands, row bool) {
	for bit, command := range map[int16]Commands{
		tgInsert: OnInsert, tgDelete: OnDelete, tgUpdate: OnUpdate, tgTruncate: OnTruncate,
	} {
		if tgtype&bit != 0 {
			c |= command
		}
	}
	return c, tgtype&tgRow != 0 && tgtype&tgBefore != 0
}

// codeCommands tells when the code in a clause of a table runs: of a default or
// a check, of a trigger's WHEN, or of a policy.
func codeCommands(clause byte) Commands {
	switch clause {
	case 't':
		return OnInsert | OnUpdate | OnDelete | OnTruncate
	case 'p':
		return OnInsert | OnUpdate | OnDelete | OnRead
	}
	return OnInsert | OnUpdate
}

func ruleCommands(event byte) Commands {
	switch event {
	case '2':
		return OnUpdate
	case '3':
		return OnInsert
	case '4':
		return OnDelete
	}
	return OnInsert | OnUpdate | OnDelete
}

// text returns b as a string that is shared with its equals: names repeat.
func (l *loader) text(b []byte) string {
	s, ok := l.interned[string(b)]
	if !ok {
		s = string(b)
		l.interned[s] = s
	}
	return s
}

func (l *loader) oid(b []byte) uint32 {
	n, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil {
		l.fail("oid", b)
	}
	return uint32(n)
}

func (l *loader) int16(b []byte) int16 {
	n, err := strconv.ParseInt(string(b), 10, 16)
	if err != nil {
		l.fail("int2", b)
	}
	return int16(n)
}

func (l *loader) numbers(b []byte) []int16 {
	var n []int16
	for s := range strings.SplitSeq(string(b), ",") {
		n = append(n, l.int16([]byte(s)))
	}
	return n
}

func (l *loader) bool(b []byte) bool {
	if s := string(b); s != "true" && s != "false" {
		l.fail("bool", b)
	}
	return string(b) == "true"
}

// char returns a "char" as text, which is empty for 0.
func char(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (l *loader) fail(what string, b []byte) {
	if l.err == nil {
		l.err = fmt.Errorf("unexpected %s %q", what, b)
	}
}

// columnIndex returns the position of an attribute number, or -1.
func columnIndex(columns []Column, number int16) int {
	return slices.IndexFunc(columns, func(c Column) bool { return c.Number == number })
}
