package walfeed

import (
	"fmt"
	"strconv"
	"strings"
)

// CheckSQL asks, in one text, for what Check looks at. Its last word stands for
// the versions of the rows that say it: what was altered and altered back is not
// what it was.
const CheckSQL = `WITH tell AS (SELECT p.oid, p.xmin::pg_catalog.text AS version FROM pg_catalog.pg_proc p
 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace WHERE nspname OPERATOR(pg_catalog.=) 'cachedpg' AND proname OPERATOR(pg_catalog.=) 'tell_ddl')
SELECT pg_catalog.concat_ws(' ', pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('wal_level'),
 coalesce((SELECT CASE WHEN NOT (pubinsert AND pubupdate AND pubdelete AND pubtruncate) THEN 'operations' WHEN pubviaroot THEN 'root'
   WHEN puballtables THEN 'good' WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE nspname OPERATOR(pg_catalog.=) 'cachedpg' AND relname OPERATOR(pg_catalog.=) 'identities') THEN 'other' ELSE 'list' END
  FROM pg_catalog.pg_publication WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg'), 'none'),
 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_event_trigger WHERE evtenabled OPERATOR(pg_catalog.=) 'A' AND evttags IS NULL
  AND (evtname OPERATOR(pg_catalog.=) 'cachedpg_ddl' AND evtevent OPERATOR(pg_catalog.=) 'ddl_command_end'
   OR evtname OPERATOR(pg_catalog.=) 'cachedpg_drop' AND evtevent OPERATOR(pg_catalog.=) 'sql_drop')
  AND EXISTS (SELECT FROM tell WHERE tell.oid OPERATOR(pg_catalog.=) evtfoid)),
 (SELECT pg_catalog.concat('v', pg_catalog.string_agg(pg_catalog.concat(oid, '/', version), ',' ORDER BY oid, version)) FROM (
  SELECT oid, xmin::pg_catalog.text AS version FROM pg_catalog.pg_publication WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg'
  UNION ALL SELECT oid, xmin::pg_catalog.text FROM pg_catalog.pg_event_trigger WHERE evtname OPERATOR(pg_catalog.=) ANY ('{cachedpg_ddl,cachedpg_drop}')
  UNION ALL SELECT oid, version FROM tell) f))`

// ConfigError says what PostgreSQL lacks for the feed, and what to do.
type ConfigError struct{ Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("cachedpg: cache_external=wal: %s: %s", e.Problem, e.Remedy)
}

const setup = "run cachedpg setup --wal, as a superuser"

// State returns, of an answer to CheckSQL with which Check finds nothing wrong, what
// differs from before if anything was altered meanwhile, and whether the publication
// lists tables: then ListSQL has to be asked.
func State(answer string) (version string, lists bool) {
	words := strings.Fields(answer)
	return words[len(words)-1], words[2] == "list"
}

// Check says what is wrong with a database that answers CheckSQL so. Its error is
// a *ConfigError where the database lacks something.
func Check(answer string) error {
	words := strings.Fields(answer)
	if len(words) < 4 {
		return fmt.Errorf("cachedpg: cache_external=wal: PostgreSQL says %q of itself", answer)
	}
	const alter = "ALTER PUBLICATION " + Publication + " SET "
	version, _ := strconv.Atoi(words[0])
	switch {
	case version < 140000:
		return &ConfigError{"PostgreSQL is older than 14", "upgrade it, or leave cache_external out"}
	case words[1] != "logical":
		return &ConfigError{"wal_level is " + words[1], "ALTER SYSTEM SET wal_level = logical, and restart PostgreSQL"}
	case words[2] == "none":
		return &ConfigError{"there is no publication " + Publication, setup}
	case words[2] == "operations":
		return &ConfigError{"publication " + Publication + " leaves operations out",
			alter + "(publish = 'insert, update, delete, truncate')"}
	case words[2] == "root":
		return &ConfigError{"publication " + Publication + " names partitioned tables instead of partitions",
			alter + "(publish_via_partition_root = false)"}
	case words[2] != "good" && words[2] != "list":
		return leavesOut("")
	case words[3] != "2":
		return &ConfigError{"the event triggers cachedpg_ddl and cachedpg_drop are missing, altered or disabled", setup}
	}
	return nil
}

func leavesOut(tables string) *ConfigError {
	return &ConfigError{"publication " + Publication + " leaves something out" + tables, "DROP PUBLICATION " + Publication + ", then " + setup}
}

// ListSQL asks of a publication that lists tables which it leaves out because no replica
// identity can serve them, what these are part of, and which others it leaves out, or
// rows or columns of.
const ListSQL = `WITH RECURSIVE followed AS (
  SELECT relid FROM pg_catalog.pg_get_publication_tables('cachedpg') g WHERE NOT EXISTS (
   SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid OPERATOR(pg_catalog.=) r.prpubid
   WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg' AND prrelid OPERATOR(pg_catalog.=) g.relid
   AND (pg_catalog.jsonb_object_field_text(pg_catalog.to_jsonb(r), 'prqual') IS NOT NULL OR pg_catalog.jsonb_object_field_text(pg_catalog.to_jsonb(r), 'prattrs') IS NOT NULL))),
 missing AS (
  SELECT c.oid, EXISTS (SELECT FROM cachedpg.identities i WHERE i.relation OPERATOR(pg_catalog.=) c.oid AND i.given IS NULL) AS known
  FROM pg_catalog.pg_class c WHERE relkind OPERATOR(pg_catalog.=) 'r' AND relpersistence OPERATOR(pg_catalog.=) 'p' AND c.oid OPERATOR(pg_catalog.>=) 16384
  AND NOT EXISTS (SELECT FROM followed f WHERE f.relid OPERATOR(pg_catalog.=) c.oid)),
 reading AS (
  SELECT oid FROM missing WHERE known
  UNION SELECT h.inhparent FROM reading r JOIN pg_catalog.pg_inherits h ON h.inhrelid OPERATOR(pg_catalog.=) r.oid)
 SELECT pg_catalog.concat_ws('|', coalesce((SELECT pg_catalog.string_agg(oid::pg_catalog.text, ' ' ORDER BY oid) FROM reading), ''),
  coalesce((SELECT pg_catalog.string_agg(oid::pg_catalog.regclass::pg_catalog.text, ', ' ORDER BY oid) FROM missing WHERE known), ''),
  coalesce((SELECT pg_catalog.string_agg(oid::pg_catalog.regclass::pg_catalog.text, ', ' ORDER BY oid) FROM (SELECT oid FROM missing WHERE NOT known ORDER BY oid LIMIT 5) f), ''))`

// Out are tables that a publication leaves out because no replica identity can serve them.
type Out struct {
	Reading []uint32 // they, and what they are partitions or children of: ascending
	Names   string   // theirs
}

// CheckList reads the answer to ListSQL.
func CheckList(answer string) (*Out, error) {
	parts := strings.SplitN(answer, "|", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("cachedpg: cache_external=wal: PostgreSQL says %q of publication %s", answer, Publication)
	}
	if parts[2] != "" {
		return nil, leavesOut(" (" + parts[2] + ")")
	}
	out := &Out{Names: parts[1]}
	for _, word := range strings.Fields(parts[0]) {
		oid, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("cachedpg: cache_external=wal: PostgreSQL says %q of publication %s", answer, Publication)
		}
		out.Reading = append(out.Reading, uint32(oid))
	}
	return out, nil
}

// Err says so; it is nil where there are none.
func (o *Out) Err() error {
	if o == nil || len(o.Reading) == 0 {
		return nil
	}
	return &ConfigError{"no replica identity can serve " + o.Names + ", so nothing is cached that reads it",
		"give it a primary key that is not DEFERRABLE, or drop its virtual generated columns"}
}

// RefusedSQL asks for tables, a few of them, whose UPDATE and DELETE PostgreSQL
// refuses because they are published: it is PostgreSQL's own rule.
const RefusedSQL = `SELECT coalesce(pg_catalog.string_agg(oid::pg_catalog.regclass::pg_catalog.text, ', ' ORDER BY oid), '') FROM (
 SELECT c.oid FROM pg_catalog.pg_class c
 CROSS JOIN (SELECT puballtables, coalesce(pg_catalog.jsonb_object_field_text(pg_catalog.to_jsonb(o), 'pubgencols'), 's') OPERATOR(pg_catalog.=) 's' AS stored,
  pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 180000 AS strict
  FROM pg_catalog.pg_publication o WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg') p
 WHERE relkind OPERATOR(pg_catalog.=) 'r' AND relpersistence OPERATOR(pg_catalog.=) 'p' AND c.oid OPERATOR(pg_catalog.>=) 16384
 AND (puballtables OR EXISTS (SELECT FROM pg_catalog.pg_get_publication_tables('cachedpg') g WHERE g.relid OPERATOR(pg_catalog.=) c.oid))
 AND CASE WHEN relreplident OPERATOR(pg_catalog.=) 'f' THEN strict AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
   WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped
   AND (a.attgenerated OPERATOR(pg_catalog.=) 'v' OR a.attgenerated OPERATOR(pg_catalog.=) 's' AND NOT stored))
  ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_index i
   WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indislive AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
   AND (relreplident OPERATOR(pg_catalog.=) 'd' AND i.indisprimary OR relreplident OPERATOR(pg_catalog.=) 'i' AND i.indisreplident)
   AND (NOT strict OR stored OR NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid
    AND a.attnum OPERATOR(pg_catalog.=) ANY (i.indkey::pg_catalog.int2[]) AND a.attgenerated OPERATOR(pg_catalog.<>) ''))) END
 ORDER BY c.oid LIMIT 5) f`

// CheckRefused reads the answer to RefusedSQL.
func CheckRefused(answer string) error {
	if answer == "" {
		return nil
	}
	return &ConfigError{"PostgreSQL refuses UPDATE and DELETE of " + answer + ", which publication " + Publication + " has without a replica identity",
		"ALTER TABLE … REPLICA IDENTITY FULL, or " + setup}
}
