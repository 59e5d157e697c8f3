package catalog

import "strings"

// A part is one kind of row of the query that reads the catalog tables. The
// parts are joined by UNION ALL into one statement, so that all of them see the
// same moment whatever the isolation level, and in one round trip. Every column
// travels as text.
type part struct {
	kind    string
	columns []string
	from    string // FROM and WHERE
	of      string // the relation that a row is a part of, 0 for none; "" if all are of none
	made    string // that a row which is a part of none was not made by initdb; "" if all were not
}

// firstUserOID is FirstNormalObjectId of PostgreSQL's access/transam.h:
// smaller OIDs are given by initdb.
const firstUserOID = 16384

// settings hold while the catalog is read. With this search_path pg_get_viewdef
// qualifies every name outside pg_catalog, and no temporary table stands in
// front of a catalog table; quoting and date style keep its text canonical.
// Compiling or parallelising these short plans would take longer than running
// them. The time is bounded by the context, except that a view whose tables
// someone has locked must not make every query wait for that lock.
const settings = `SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL quote_all_identifiers = off;
SET LOCAL datestyle = ISO;
SET LOCAL intervalstyle = postgres;
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = '250ms';
`

// views deparses the views, and the functions that PostgreSQL keeps parsed. It is a statement of its own because it alone
// takes locks (on the tables of the views) and can therefore fail by itself.
var views = viewsAmong(nil)

// viewsAmong is views for some of them, if relations is not nil.
func viewsAmong(relations []uint32) string {
	among := ""
	if relations != nil {
		among = " AND oid = ANY (" + oids(relations) + ")"
	}
	return `SELECT '` + kindView + `', oid::text, pg_get_viewdef(oid) FROM pg_class WHERE relkind IN ('v', 'm')
AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema'))` + among + `;
SELECT '` + kindBody + `', oid::text, pg_get_function_sqlbody(oid) FROM pg_proc WHERE prosqlbody IS NOT NULL AND oid >= 16384;
`
}

// The kinds of rows. What each has in its columns is in parts.
const (
	kindRelation  = "r"
	kindColumn    = "a"
	kindKey       = "k"
	kindInherit   = "i"
	kindReference = "f"
	kindTrigger   = "t"
	kindRule      = "w"
	kindCode      = "c"
	kindSource    = "v"
	kindFunction  = "p"
	kindAggregate = "g"
	kindOperator  = "o"
	kindType      = "y"
	kindTypeCode  = "d"
	kindCast      = "x"
	kindPartition = "b"
	kindEvent     = "e"
	kindOperand   = "u"
	kindVersion   = "n"
	kindLeading   = "l"
	kindCastType  = "z"

	// No facts, see views and Reload.
	kindView   = "V"
	kindBody   = "B"
	kindMoment = "M"
	kindMember = "m"
)

// userRelation is true for a pg_class c outside the system schemas.
const userRelation = `c.relnamespace NOT IN
	(SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'pg_toast'))`

// ownType is true for a pg_type row that is not made with a relation or another type.
const ownType = `typtype IN ('b', 'd', 'e', 'r', 'm') AND typsubscript IS DISTINCT FROM 'array_subscript_handler'::regproc`

// rowType is the relation that a pg_type row t is made with, as its row type or the array of that, else 0.
const (
	arrayOf = `t.typrelid = 0 AND e.oid = t.typelem AND t.typsubscript = 'array_subscript_handler'::regproc AND t.typlen = -1`
	rowType = "CASE WHEN t.typrelid <> 0 THEN t.typrelid ELSE coalesce(e.typrelid, 0) END"
)

// object classes in dependencies, one letter each.
const refKind = `CASE d.refclassid WHEN 'pg_proc'::regclass THEN 'p' WHEN 'pg_operator'::regclass THEN 'o' ELSE 't' END`

// userObject restricts a dependency to what may be user code. Built-in
// functions are pinned: PostgreSQL does not record dependencies on them.
const userObject = `d.refobjid >= 16384
	AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)`

var parts = []part{
	{kindRelation,
		[]string{"c.oid", "n.nspname", "c.relname", "c.relkind", "c.relpersistence", "c.relrowsecurity", "c.relowner", "c.relacl"},
		`FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')`, "c.oid", ""},

	// Of composite types ('c') the columns say what a type is made of.
	{kindColumn,
		[]string{"a.attrelid", "a.attname", "a.attnum", "a.atttypid",
			"coalesce(l.collisdeterministic, true)", "a.attgenerated", "a.xmin", "a.atthasdef OR a.attidentity <> ''", "a.atttypmod >= 0"},
		`FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		LEFT JOIN pg_collation l ON l.oid = a.attcollation
		WHERE a.attnum > 0 AND NOT a.attisdropped
		AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND ` + userRelation, "a.attrelid", ""},

	// Only btree indexes are unique by the type's own equality (temporal keys
	// are GiST), and only by a built-in default operator class is it certain
	// which one that is.
	{kindKey,
		[]string{"i.indexrelid", "i.indrelid", "i.indisprimary", "NOT i.indimmediate",
			"array_to_string((i.indkey::int2[])[0:i.indnkeyatts - 1], ',')",
			`EXISTS (SELECT FROM pg_index o WHERE o.indrelid = i.indrelid AND o.indisunique
				AND (o.indkey::int2[])[0:o.indnkeyatts - 1] @> (i.indkey::int2[])[0:i.indnkeyatts - 1]
				AND (o.indkey::int2[])[0:o.indnkeyatts - 1] <@ (i.indkey::int2[])[0:i.indnkeyatts - 1]
				AND ` + odd("o") + `)`},
		`FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
		JOIN pg_am m ON m.oid = x.relam
		WHERE i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND NOT i.indisexclusion
		AND i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree' AND c.relkind <> 't'
		AND NOT ` + odd("i") + ` AND ` + userRelation, "i.indrelid", ""},

	// One row for a column, however many indexes it leads: another one changes nothing.
	{kindLeading, []string{"w.indrelid", "w.attnum"},
		`FROM (SELECT DISTINCT i.indrelid, i.indkey[0] AS attnum
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_opclass o ON o.oid = i.indclass[0]
		WHERE i.indisvalid AND i.indisready AND i.indislive AND i.indkey[0] > 0
		AND o.opcdefault AND o.oid < 16384 AND o.opcmethod IN (SELECT oid FROM pg_am WHERE amname IN ('btree', 'hash'))
		AND c.relkind <> 't' AND ` + userRelation + `) w WHERE true`, "w.indrelid", ""},

	// A partition that is being detached concurrently counts until it is gone. Those of indexes mean nothing.
	{kindInherit, []string{"inhrelid", "inhparent"}, `FROM pg_inherits WHERE inhrelid NOT IN (SELECT indexrelid FROM pg_index)`, "inhrelid", ""},

	// Those of the driver itself write a message into the log, and after DDL alone.
	{kindEvent, []string{"oid"}, `FROM pg_event_trigger WHERE evtenabled <> 'D'
		AND evtfoid NOT IN (SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE n.nspname = 'cachedpg' AND p.proname = 'tell_ddl')`, "", ""},

	// 0 is an expression.
	{kindPartition, []string{"partrelid", "array_to_string(partattrs::int2[], ',')"}, `FROM pg_partitioned_table WHERE true`, "partrelid", ""},

	{kindReference,
		[]string{"confrelid", "conrelid", "array_to_string(confkey, ',')", "array_to_string(conkey, ',')",
			"confdeltype", "confupdtype",
			"convalidated AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = c.oid AND t.tgenabled NOT IN ('O', 'A'))"},
		`FROM pg_constraint c WHERE contype = 'f'`, "conrelid", ""},

	// Internal triggers are those of foreign keys and deferrable keys; up to
	// version 14 also the clones of user triggers on partitions. A trigger that
	// fires only on replicas counts: session_replication_role decides.
	{kindTrigger, []string{"t.tgrelid", "t.tgfoid", "t.tgtype", "t.tgdeferrable", "array_to_string(t.tgattr::int2[], ',')"},
		`FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
		WHERE t.tgenabled <> 'D' AND NOT (t.tgisinternal AND p.oid < 16384
			AND (p.proname LIKE 'RI\_FKey\_%' OR p.proname = 'unique_key_recheck'))`, "t.tgrelid", ""},

	{kindRule, []string{"ev_class", "ev_type"},
		`FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class
		WHERE ev_type <> '1' AND ev_enabled <> 'D' AND ` + userRelation, "ev_class", ""},

	// For the digest alone: which version of a definition this is. A statement
	// that replaces one writes a new row, ANALYZE, VACUUM and COMMENT do not.
	{kindVersion, []string{"w.of", "w.class", "w.oid", "w.version"},
		`FROM (
			SELECT ev_class AS of, 'pg_rewrite' AS class, pg_rewrite.oid, pg_rewrite.xmin AS version
				FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class WHERE ` + userRelation + `
			UNION ALL SELECT polrelid, 'pg_policy', oid, xmin FROM pg_policy
			UNION ALL SELECT 0, 'pg_namespace', oid, xmin FROM pg_namespace
				WHERE nspname NOT LIKE 'pg\_temp\_%' AND nspname NOT LIKE 'pg\_toast\_temp\_%'
			UNION ALL SELECT 0, 'pg_proc', oid, xmin FROM pg_proc WHERE oid >= 16384
			UNION ALL SELECT 0, 'pg_enum', oid, xmin FROM pg_enum
			UNION ALL SELECT 0, 'pg_cast', oid, xmin FROM pg_cast WHERE oid >= 16384
			UNION ALL SELECT 0, 'pg_collation', oid, xmin FROM pg_collation WHERE oid >= 16384
			UNION ALL SELECT 0, 'pg_operator', oid, xmin FROM pg_operator WHERE oid >= 16384
			UNION ALL SELECT 0, 'pg_opclass', oid, xmin FROM pg_opclass WHERE oid >= 16384
			UNION ALL SELECT 0, 'pg_type', oid, xmin FROM pg_type WHERE oid >= 16384 AND ` + ownType + `
			UNION ALL SELECT 0, 'pg_range', rngtypid, xmin FROM pg_range WHERE rngtypid >= 16384
		) w WHERE true`, "w.of", ""},

	// The function that a trigger calls is in kindTrigger; here are those of its WHEN.
	{kindCode, []string{"w.rel", refKind, "d.refobjid", "w.clause"},
		`FROM pg_depend d JOIN (
			SELECT 'pg_attrdef'::regclass AS class, oid AS obj, adrelid AS rel, 'c' AS clause, 0::oid AS known FROM pg_attrdef
			UNION ALL SELECT 'pg_constraint'::regclass, oid, conrelid, 'c', 0 FROM pg_constraint WHERE conrelid <> 0
			UNION ALL SELECT 'pg_class'::regclass, indexrelid, indrelid, 'c', 0 FROM pg_index
			UNION ALL SELECT 'pg_class'::regclass, oid, oid, 'c', 0 FROM pg_class WHERE relkind IN ('r', 'p', 'f')
			UNION ALL SELECT 'pg_policy'::regclass, oid, polrelid, 'p', 0 FROM pg_policy
			UNION ALL SELECT 'pg_trigger'::regclass, oid, tgrelid, 't', tgfoid FROM pg_trigger WHERE tgqual IS NOT NULL
		) w ON w.class = d.classid AND w.obj = d.objid
		WHERE d.refobjid <> w.known AND ` + userObject, "w.rel", ""},

	{kindSource, []string{"w.ev_class", "w.refobjid"},
		`FROM (SELECT w.ev_class, d.refobjid FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
		JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
		WHERE w.ev_type = '1' AND c.relkind IN ('v', 'm') AND d.refobjid <> w.ev_class AND ` + userRelation + `
		GROUP BY w.ev_class, d.refobjid) w WHERE true`, "w.ev_class", ""},

	// The arguments of an ordered-set aggregate stand in two places, and CALL
	// counts OUT parameters: they match any number.
	{kindFunction,
		[]string{"p.oid", "n.nspname", "p.proname", "p.provolatile", "p.prokind", "p.proretset",
			"CASE WHEN p.prokind = 'p' OR g.aggkind <> 'n' THEN 0 ELSE p.pronargs - p.pronargdefaults - (p.provariadic <> 0)::int END",
			"CASE WHEN p.prokind = 'p' OR g.aggkind <> 'n' OR p.provariadic <> 0 THEN -1 ELSE p.pronargs END",
			"CASE WHEN p.oid >= 16384 THEN l.lanname END",
			"l.lanpltrusted", "e.extname",
			"CASE WHEN p.oid >= 16384 AND l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL" +
				" AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'standard_conforming_strings=%') THEN p.prosrc END",
			"p.prosecdef OR EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~ '^(role|session_authorization)=')",
			"CASE WHEN p.oid >= 16384 THEN (SELECT substr(c, 13) FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%') END"},
		`FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
		LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
		LEFT JOIN pg_depend d ON p.oid >= 16384 AND d.classid = 'pg_proc'::regclass AND d.objid = p.oid
			AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
		LEFT JOIN pg_extension e ON e.oid = d.refobjid WHERE true`, "", "p.oid >= 16384"},

	// pg_proc calls every user-defined aggregate immutable, and what it says of a
	// function leaves out what the defaults of its arguments call.
	{kindAggregate, []string{"w.of", "w.calls"},
		`FROM (
			SELECT g.aggfnoid::oid AS of, f.oid AS calls
			FROM pg_aggregate g CROSS JOIN unnest(ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn,
				g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::oid[]) f(oid)
			WHERE g.aggfnoid::oid >= 16384 AND f.oid <> 0
			UNION SELECT p.oid, f.oid FROM pg_proc p CROSS JOIN LATERAL ` + calls("p.proargdefaults") + ` f(oid)
			WHERE p.oid >= 16384 AND p.proargdefaults IS NOT NULL
		) w`, "", ""},

	// Checks of domains run for what goes in and comes out.
	{kindOperand, []string{"p.oid", "t.oid"},
		`FROM pg_proc p CROSS JOIN LATERAL unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) t(oid)
		WHERE p.oid >= 16384 AND t.oid >= 16384`, "", ""},

	{kindOperator, []string{"o.oid", "n.nspname", "o.oprname", "o.oprleft", "o.oprright", "o.oprcode::oid"},
		`FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oprcode <> 0`, "", "o.oid >= 16384"},

	{kindType, []string{"t.oid", "n.nspname", "t.typname", "t.typtype", "t.typbasetype",
		"CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc AND t.typlen = -1 THEN t.typelem ELSE 0 END",
		"t.typrelid", rowType, "t.typtypmod >= 0", "t.typdefault IS NOT NULL"},
		`FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type e ON ` + arrayOf + `
		WHERE true`, rowType, "t.oid >= 16384"},

	// What runs for the values of a type: checks of a domain (its default, too,
	// is recorded as a dependency of the type), support functions of a base type,
	// comparison and hashing, and, by 't', the range below it. The analyze
	// function runs in ANALYZE alone. Binary input and output are stable where
	// they depend on the client's encoding and nothing else (citext, as text).
	{kindTypeCode, []string{"w.typ", "w.ref", "w.obj"},
		`FROM (
			SELECT c.contypid AS typ, ` + refKind + ` AS ref, d.refobjid AS obj
			FROM pg_constraint c JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
			WHERE c.contypid <> 0 AND ` + userObject + `
			UNION SELECT c.contypid, 'p', f.oid FROM pg_constraint c CROSS JOIN LATERAL ` + calls("c.conbin") + ` f(oid)
			WHERE c.contypid >= 16384
			UNION SELECT t.oid, ` + refKind + `, d.refobjid
			FROM pg_type t JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid
			WHERE t.typtype = 'd' AND ` + userObject + `
			UNION SELECT t.oid, 'p', f.oid
			FROM pg_type t CROSS JOIN unnest(ARRAY[t.typinput, t.typoutput,
				t.typmodin, t.typmodout, t.typsubscript]::oid[]) f(oid)
			WHERE t.oid >= 16384 AND f.oid >= 16384
			UNION SELECT t.oid, 'p', p.oid
			FROM pg_type t JOIN pg_proc p ON p.oid IN (t.typreceive, t.typsend)
			WHERE t.oid >= 16384 AND p.oid >= 16384 AND p.provolatile = 'v'
			UNION SELECT c.opcintype, 'p', s.amproc::oid
			FROM pg_opclass c JOIN pg_amproc s ON s.amprocfamily = c.opcfamily
				AND s.amproclefttype = c.opcintype AND s.amprocrighttype = c.opcintype
			WHERE c.opcdefault AND s.amproc::oid >= 16384
				AND c.opcmethod IN (SELECT oid FROM pg_am WHERE amname IN ('btree', 'hash'))
			UNION SELECT c.opcintype, 'o', s.amopopr
			FROM pg_opclass c JOIN pg_amop s ON s.amopfamily = c.opcfamily
				AND s.amoplefttype = c.opcintype AND s.amoprighttype = c.opcintype
			WHERE c.opcdefault AND s.amopopr >= 16384
				AND c.opcmethod IN (SELECT oid FROM pg_am WHERE amname IN ('btree', 'hash'))
			UNION SELECT r.rngtypid, 't', r.rngsubtype FROM pg_range r WHERE r.rngtypid >= 16384
			UNION SELECT r.rngtypid, 'p', f.oid
			FROM pg_range r CROSS JOIN unnest(ARRAY[r.rngcanonical, r.rngsubdiff]::oid[]) f(oid) WHERE f.oid >= 16384
			UNION SELECT r.rngmultitypid, 't', r.rngtypid FROM pg_range r WHERE r.rngtypid >= 16384
		) w`, "", ""},

	// A cast WITH INOUT may read a text as a time, or look a name up.
	{kindCast, []string{"c.castsource", "c.casttarget", "CASE WHEN c.castfunc = 0 THEN " + stableFunction + " ELSE c.castfunc END"},
		`FROM pg_cast c WHERE c.oid >= 16384 AND (c.castfunc <> 0 OR c.castmethod = 'i' AND EXISTS (SELECT FROM pg_type t
			WHERE t.oid = c.casttarget AND (t.typcategory IN ('A', 'C', 'D', 'R') OR t.typname LIKE 'reg%')))`, "", ""},

	{kindCastType, []string{"w.typ"},
		`FROM (SELECT castsource AS typ FROM pg_cast WHERE oid >= 16384 UNION SELECT casttarget FROM pg_cast WHERE oid >= 16384) w`, "", ""},
}

// stableFunction is the OID of now(), for whatever is as stable as that.
const stableFunction = "1299"

// calls is a query of the functions that a stored expression calls, built-in
// ones included, of which PostgreSQL records no dependency. current_date and
// its like are no functions, nor is the conversion of a text by way of the input
// function of a type that is not among the plainest.
func calls(expression string) string {
	return `(SELECT m[1]::oid FROM regexp_matches(` + expression + `::text, ':(?:op)?funcid ([0-9]+)', 'g') m
		UNION SELECT ` + stableFunction + `::oid WHERE ` + expression + `::text ~ '{(SQLVALUEFUNCTION|NEXTVALUEEXPR)'
		OR ` + expression + `::text ~ '{COERCEVIAIO' AND EXISTS (
			SELECT FROM regexp_matches(` + expression + `::text, ':resulttype ([0-9]+)', 'g') m
			WHERE m[1]::oid NOT IN (16, 20, 21, 23, 25, 700, 701, 1042, 1043, 1700, 2950)))`
}

// everything is the statement that the parts make.
var everything = union(func(part) string { return "" })

// factsBegin is how every union begins.
const factsBegin = "SELECT '" + kindRelation + "', (c.oid)::text, "

// union makes a statement of all parts, each with a further condition.
func union(condition func(part) string) string {
	width := 0
	for _, p := range parts {
		width = max(width, len(p.columns))
	}
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteString("\nUNION ALL ")
		}
		b.WriteString("SELECT '" + p.kind + "'")
		for _, c := range p.columns {
			b.WriteString(", (" + c + ")::text")
		}
		b.WriteString(strings.Repeat(", NULL", width-len(p.columns)) + " " + p.from + condition(p))
	}
	b.WriteString(";\n")
	return b.String()
}

// odd is the condition that an index does not compare by the default of its
// columns' types, or not by their bytes.
func odd(index string) string {
	return `(` + index + `.indclass::oid[] && ARRAY(SELECT oid FROM pg_opclass WHERE NOT opcdefault OR oid >= 16384)
		OR ` + index + `.indcollation::oid[] && ARRAY(SELECT oid FROM pg_collation WHERE NOT collisdeterministic))`
}
