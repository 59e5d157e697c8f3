package walfeed

import (
	"fmt"
	"strconv"
	"strings"
)

// Publication is the name of the publication that is followed.
const Publication = "cachedpg"

// SetupSQL makes in a database what the feed needs, and can be run again. It
// needs a superuser, or what a managed PostgreSQL has in its place.
//
// A published table must have a replica identity, or PostgreSQL refuses its UPDATEs
// and DELETEs. A table without a primary key therefore gets REPLICA IDENTITY
// FULL: those that are there, and by the trigger those to come.
const SetupSQL = `
CREATE SCHEMA IF NOT EXISTS cachedpg;

-- Gives a table an identity that has none by which its rows could be told apart.
CREATE OR REPLACE FUNCTION cachedpg.identify(relation pg_catalog.oid) RETURNS pg_catalog.void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relreplident IN ('d', 'n')
		AND n.nspname NOT IN ('pg_catalog', 'information_schema')
		AND (c.relreplident = 'n' OR NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))) THEN
		EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', relation::regclass);
	END IF;
END $$;

-- Tells who follows the log of changes of the schema, which it does not show.
CREATE OR REPLACE FUNCTION cachedpg.tell_ddl() RETURNS pg_catalog.event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	o record;
	told boolean := false;
BEGIN
	IF tg_event = 'sql_drop' THEN
		PERFORM pg_logical_emit_message(true, 'cachedpg', 'ddl')
			WHERE EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary);
		RETURN;
	END IF;
	FOR o IN SELECT classid, objid, schema_name FROM pg_event_trigger_ddl_commands() LOOP
		CONTINUE WHEN o.schema_name = 'pg_temp';
		IF tg_tag = 'REFRESH MATERIALIZED VIEW' AND o.classid = 'pg_class'::regclass THEN
			PERFORM pg_logical_emit_message(true, 'cachedpg', 'refresh ' || o.objid);
			CONTINUE;
		END IF;
		IF NOT told THEN
			PERFORM pg_logical_emit_message(true, 'cachedpg', 'ddl');
			told := true;
		END IF;
		IF o.classid = 'pg_class'::regclass THEN
			PERFORM cachedpg.identify(o.objid);
		END IF;
	END LOOP;
END $$;

DROP EVENT TRIGGER IF EXISTS cachedpg_ddl;
CREATE EVENT TRIGGER cachedpg_ddl ON ddl_command_end EXECUTE FUNCTION cachedpg.tell_ddl();
ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS;
DROP EVENT TRIGGER IF EXISTS cachedpg_drop;
CREATE EVENT TRIGGER cachedpg_drop ON sql_drop EXECUTE FUNCTION cachedpg.tell_ddl();
ALTER EVENT TRIGGER cachedpg_drop ENABLE ALWAYS;
GRANT USAGE ON SCHEMA cachedpg TO PUBLIC;

SELECT cachedpg.identify(oid) FROM pg_catalog.pg_class WHERE relkind OPERATOR(pg_catalog.=) ANY ('{r,p}');

DO $$ BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg') THEN
		CREATE PUBLICATION cachedpg FOR ALL TABLES WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false);
	END IF;
END $$;
`

// CheckSQL asks, in one text, for what Check looks at.
const CheckSQL = `SELECT pg_catalog.concat_ws(' ', pg_catalog.current_setting('server_version_num'), pg_catalog.current_setting('wal_level'),
 coalesce((SELECT CASE WHEN puballtables AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot THEN 'good' ELSE 'other' END
  FROM pg_catalog.pg_publication WHERE pubname OPERATOR(pg_catalog.=) 'cachedpg'), 'none'),
 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_event_trigger WHERE evtname OPERATOR(pg_catalog.=) ANY ('{cachedpg_ddl,cachedpg_drop}') AND evtenabled OPERATOR(pg_catalog.=) 'A'))`

// ConfigError says what PostgreSQL lacks for the feed, and what to do.
type ConfigError struct{ Problem, Remedy string }

func (e *ConfigError) Error() string {
	return fmt.Sprintf("cachedpg: cache_external=wal: %s: %s", e.Problem, e.Remedy)
}

// Check says what is wrong with a database that answers CheckSQL so.
func Check(answer string) error {
	words := strings.Fields(answer)
	if len(words) != 4 {
		return fmt.Errorf("cachedpg: cache_external=wal: PostgreSQL says %q of itself", answer)
	}
	const setup = "run cachedpg setup --wal, as a superuser"
	version, _ := strconv.Atoi(words[0])
	switch {
	case version < 140000:
		return &ConfigError{"PostgreSQL is older than 14", "upgrade it, or leave cache_external out"}
	case words[1] != "logical":
		return &ConfigError{"wal_level is " + words[1], "ALTER SYSTEM SET wal_level = logical, and restart PostgreSQL"}
	case words[2] == "none":
		return &ConfigError{"there is no publication " + Publication, setup}
	case words[2] != "good":
		return &ConfigError{"publication " + Publication + " leaves something out", "DROP PUBLICATION " + Publication + ", then " + setup}
	case words[3] != "2":
		return &ConfigError{"the event triggers cachedpg_ddl and cachedpg_drop are missing or disabled", setup}
	}
	return nil
}
