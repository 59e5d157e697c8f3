package catalog

import "strings"

// loader collects the rows of one load. Rows come in any order, so everything
// that joins two of them waits for contents.
type loader struct {
	facts
	views      map[uint32]string
	bodies     map[uint32]string // of functions that PostgreSQL keeps parsed
	incomplete bool
	recent     []uint32 // units, see memberQuestion
	interned   map[string]string
	err        error
}

// facts are the rows of a load by what they are of, which is what is loaded again
// together, see Reload: a relation; or one of these.
type facts struct {
	units   map[uint32]*unit
	moment  moment
	members map[uint32]members // by unit
}

const (
	own     = 0 // what belongs to no relation
	builtin = 1 // of that, what initdb made
)

// unit is what rows say of one thing that is loaded as a whole. Once it is loaded it is immutable.
type unit struct {
	relation  *Relation
	columns   []Column
	functions []function
	operators []operator
	types     []typ

	keys       []keyRow
	parents    []uint32
	partition  []int16
	references []referenceRow
	code       []codeRow
	triggers   []triggerRow // rules, too
	sources    []uint32
	aggregates [][2]uint32 // aggregate or function, what it calls beside its text
	operands   [][2]uint32 // function, type of an argument or of the result
	typeCode   []codeRow
	casts      [][3]uint32 // source, target, function
	castTypes  []uint32    // see Type.Cast
	leading    []int16
	events     bool // see Snapshot.EventTriggers
	schemas    schemaSum

	digest sum
}

type (
	function struct {
		outward bool // see Snapshot.Outward
		Function
	}
	operator struct {
		oid, function uint32
		Operator
	}
	typ struct {
		relation  uint32 // of a composite type
		modified  bool   // a domain, or the type below it, has a type modifier
		defaulted bool
		Type
	}
	keyRow struct {
		numbers []int16
		Key
	}
	referenceRow struct {
		to          uint32
		referenced  []int16
		referencing []int16
		Reference
		holds bool
	}
	triggerRow struct {
		numbers []int16
		Code
	}
	codeRow struct {
		of     uint32 // type
		kind   byte   // what runs: 'p' function, 'o' operator, 't' code of a type
		object uint32
		on     Commands
	}
)

func newLoader() *loader {
	return &loader{
		facts:    facts{units: make(map[uint32]*unit), members: make(map[uint32]members)},
		views:    make(map[uint32]string),
		bodies:   make(map[uint32]string),
		interned: make(map[string]string),
	}
}

// row takes one row of a load.
func (l *loader) row(v [][]byte) {
	switch kind := string(v[0]); kind {
	case kindMoment:
		l.moment = momentOf(v[1:])
	case kindMember:
		l.member(v[1:])
	case kindView:
		if v[2] != nil { // what was dropped meanwhile has no definition
			l.views[l.oid(v[1])] = string(v[2])
		}
	case kindBody:
		if v[2] != nil {
			l.bodies[l.oid(v[1])] = string(v[2])
		}
	default:
		l.fact(kind, v[1:])
	}
}

// unitOf finds what a row is a part of.
func (l *loader) unitOf(kind string, v [][]byte) *unit {
	id := uint32(own)
	if i, ok := ownerOf[kind]; ok {
		id = l.oid(v[i])
	}
	if id == own && (kind == kindFunction || kind == kindOperator || kind == kindType) && l.oid(v[0]) < firstUserOID {
		id = builtin
	}
	u := l.units[id]
	if u == nil {
		u = &unit{}
		l.units[id] = u
	}
	return u
}

// fact takes one row of facts; see parts for its columns.
func (l *loader) fact(kind string, v [][]byte) {
	u := l.unitOf(kind, v)
	u.digest.take(kind, v)
	switch kind {
	case kindRelation:
		schema := l.text(v[1])
		u.relation = &Relation{
			OID: l.oid(v[0]), Schema: schema, Name: l.text(v[2]), Kind: char(v[3]),
			Temporary: char(v[4]) == 't', Unlogged: char(v[4]) == 'u', RowSecurity: l.bool(v[5]),
			System: schema == "pg_catalog" || schema == "information_schema",
		}
	case kindColumn:
		u.columns = append(u.columns, Column{
			Name: l.text(v[1]), Number: l.int16(v[2]), Type: l.oid(v[3]),
			Deterministic: l.bool(v[4]), Generated: char(v[5]), Default: l.bool(v[7]), Modified: l.bool(v[8]),
		})
	case kindKey:
		u.keys = append(u.keys, keyRow{l.numbers(v[4]),
			Key{Index: l.oid(v[0]), Primary: l.bool(v[2]), Deferrable: l.bool(v[3]), Rivalled: l.bool(v[5])}})
	case kindInherit:
		u.parents = append(u.parents, l.oid(v[1]))
	case kindPartition:
		u.partition = l.numbers(v[1])
	case kindEvent:
		u.events = true
	case kindReference:
		u.references = append(u.references, referenceRow{l.oid(v[0]), l.numbers(v[2]), l.numbers(v[3]),
			Reference{Table: l.oid(v[1]), Deletes: action(v[4]), Updates: action(v[5])}, l.bool(v[6])})
	case kindLeading:
		u.leading = append(u.leading, l.int16(v[1]))
	case kindTrigger:
		t := triggerRow{nil, Code{Function: l.oid(v[1]), Trigger: true}}
		t.On, t.Row = triggerCommands(l.int16(v[2]))
		if len(v[4]) > 0 {
			t.numbers = l.numbers(v[4])
		}
		t.Deferrable = l.bool(v[3])
		u.triggers = append(u.triggers, t)
	case kindRule:
		u.triggers = append(u.triggers, triggerRow{nil, Code{On: ruleCommands(char(v[1]))}})
	case kindCode:
		u.code = append(u.code, codeRow{kind: char(v[1]), object: l.oid(v[2]), on: codeCommands(char(v[3]))})
	case kindSource:
		u.sources = append(u.sources, l.oid(v[1]))
	case kindFunction:
		u.functions = append(u.functions, l.function(v))
	case kindAggregate:
		u.aggregates = append(u.aggregates, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindOperand:
		u.operands = append(u.operands, [2]uint32{l.oid(v[0]), l.oid(v[1])})
	case kindOperator:
		u.operators = append(u.operators, operator{l.oid(v[0]), l.oid(v[5]), Operator{
			Schema: l.text(v[1]), Name: l.text(v[2]), Left: l.oid(v[3]), Right: l.oid(v[4])}})
	case kindType:
		t := Type{OID: l.oid(v[0]), Schema: l.text(v[1]), Name: l.text(v[2]), Kind: char(v[3]),
			Base: l.oid(v[4]), Element: l.oid(v[5])}
		t.Builtin = isBuiltin(t.OID, t.Schema)
		t.Reg = t.Builtin && strings.HasPrefix(t.Name, "reg")
		u.types = append(u.types, typ{l.oid(v[6]), l.bool(v[8]), l.bool(v[9]), t})
	case kindTypeCode:
		u.typeCode = append(u.typeCode, codeRow{of: l.oid(v[0]), kind: char(v[1]), object: l.oid(v[2])})
	case kindCast:
		u.casts = append(u.casts, [3]uint32{l.oid(v[0]), l.oid(v[1]), l.oid(v[2])})
	case kindCastType:
		u.castTypes = append(u.castTypes, l.oid(v[0]))
	case kindVersion:
		if string(v[1]) == "pg_namespace" {
			u.schemas.add(l.oid(v[2]), l.oid(v[3]))
		}
	default:
		l.fail("kind", []byte(kind))
	}
}

func (l *loader) function(v [][]byte) function {
	f := function{Function: Function{
		OID: l.oid(v[0]), Schema: l.text(v[1]), Name: l.text(v[2]), Volatility: char(v[3]),
		Aggregate: char(v[4]) == 'a', Window: char(v[4]) == 'w', Procedure: char(v[4]) == 'p', SetReturning: l.bool(v[5]),
		MinArgs: l.int16(v[6]), MaxArgs: l.int16(v[7]),
	}}
	f.Builtin = isBuiltin(f.OID, f.Schema)
	// What initdb puts outside pg_catalog is not Builtin, but it writes nothing.
	if f.OID >= firstUserOID {
		f.Language, f.Source = l.text(v[8]), string(v[11])
		f.Definer = l.bool(v[12])
		f.SearchPath, f.SetsPath = string(v[13]), v[13] != nil
		reach := reachOf(f.Language, l.bool(v[9]), string(v[10]))
		if f.Volatility == 'v' && reach > nowhere || f.Volatility == 's' && reach > nowhere && (f.Language != "c" || reach == within) {
			f.Writers = []uint32{f.OID}
		}
		f.outward = f.Volatility == 'v' && reach == outside
	}
	return f
}

func isBuiltin(oid uint32, schema string) bool {
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
