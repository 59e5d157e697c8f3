package catalog

// watched is true for a pg_class row whose changes a session is told of by its
// OID: what Load reads of the other kinds belongs to one of these.
const watched = `relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S') AND relpersistence <> 't'`

// inventory gives what a question is made of: the session, all relations, the
// types that are made by themselves, and the highest OIDs.
const inventory = settle + `SELECT pg_backend_pid(),
	(SELECT coalesce(string_agg(quote_literal(oid::text), ','), '') FROM pg_class WHERE oid >= 16384 AND ` + watched + `),
	(SELECT coalesce(string_agg(oid::text, ','), '') FROM pg_type WHERE oid >= 16384 AND ` + ownType + `),
	(SELECT max(oid) FROM pg_class), (SELECT max(oid) FROM pg_type);`

// settle begins a message, which is a transaction, in which names mean what they say.
const settle = alone + settings

// count counts rows of a catalog table, see Watch.
func count(from string) string {
	return "(SELECT concat_ws(',', count(*), sum(xmin::text::int8)) FROM " + from + ")"
}

// How the questions of a Watch begin that are asked over and over.
const (
	questionBegins = `SELECT pg_backend_pid(), 'now'::timestamptz,
	EXISTS (SELECT FROM pg_class WHERE oid > `
	snapshotBegins = "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text, "
)

// question is the statement of a Watch. The planner makes a constant of the
// array, which has done its work when it was mentioned.
func question(relations, types, lastRelation, lastType, also string) string {
	return questionBegins + lastRelation + ` AND ` + watched + `)
		OR EXISTS (SELECT FROM pg_type WHERE oid > ` + lastType + ` AND ` + ownType + `),
	concat_ws(' ', ` + count("pg_type WHERE oid = ANY ('{"+types+"}')") + rest + `),
	` + also + `
	WHERE ARRAY[` + relations + `]::regclass[] IS NOT NULL`
}

// rest counts what belongs to no relation.
var rest = func() (expressions string) {
	for _, from := range []string{
		"pg_proc WHERE oid >= 16384", "pg_enum", "pg_cast WHERE oid >= 16384", "pg_collation WHERE oid >= 16384",
		"pg_operator WHERE oid >= 16384", "pg_opclass WHERE oid >= 16384", "pg_amop WHERE oid >= 16384", "pg_amproc WHERE oid >= 16384",
		"pg_range WHERE rngtypid >= 16384", "pg_constraint WHERE contypid >= 16384", "pg_event_trigger", "pg_extension", "pg_language",
	} {
		expressions += ",\n\t\t" + count(from)
	}
	return expressions
}()

// relations counts those of pg_class by what Load reads of them. Its rows are also
// written for what changes nothing: TRUNCATE and VACUUM FULL give a table another file.
const relations = `(SELECT concat_ws(',', count(*), sum(hashtextextended(ROW(
		oid, relnamespace, relkind, relpersistence, relrowsecurity, relowner, relacl, relname)::text, 0))) FROM pg_class WHERE ` + watched + `)`

// versionsOfAll counts all that Load reads, but for what belongs to temporary relations.
var versionsOfAll = settle + `WITH temporary AS (SELECT oid FROM pg_class WHERE relpersistence = 't')
	SELECT concat_ws(' ', ` + relations + func() (expressions string) {
	for _, from := range [][2]string{
		{"pg_attribute WHERE attnum > 0 AND attrelid NOT IN (SELECT oid FROM pg_class WHERE relkind IN ('i', 'I', 't'))", "attrelid"}, {"pg_index WHERE true", "indrelid"},
		{"pg_constraint WHERE true", "conrelid"}, {"pg_trigger WHERE true", "tgrelid"}, {"pg_rewrite WHERE true", "ev_class"},
		{"pg_policy WHERE true", "polrelid"}, {"pg_attrdef WHERE true", "adrelid"}, {"pg_inherits WHERE true", "inhrelid"},
		{"pg_partitioned_table WHERE true", "partrelid"},
		{"pg_type WHERE oid >= 16384 AND " + ownType, ""}, {"pg_namespace WHERE nspname NOT LIKE 'pg\\_%temp\\_%'", ""},
	} {
		if from[1] != "" {
			from[0] += " AND " + from[1] + " NOT IN (SELECT oid FROM temporary)"
		}
		expressions += ",\n\t\t" + count(from[0])
	}
	return expressions + rest
}() + `);`
