package walfeed

// Publication is the name of the publication that is followed.
const Publication = "cachedpg"

// SetupSQL makes in a database what the feed needs, mends what is there, and can
// be run again. It needs a superuser, or what a managed PostgreSQL has in its place.
//
// PostgreSQL refuses UPDATE and DELETE of a published table that has no replica
// identity. To have a primary key is not to have one: a DEFERRABLE key is none,
// nor is an index that was chosen and dropped. cachedpg.look therefore gives one
// to each table that lacks it, here and after every command that may have taken
// it or brought a key; cachedpg.identities remembers what was there before. A
// table that no identity can serve (in version 18: no key, and a virtual generated
// column) is left out, for which FOR ALL TABLES gives way to a list of the others.
//
// The triggers run as the role that has made them: who changes the schema may
// own nothing of what has to be looked at. Nobody else may call the functions. In
// a trigger they do not wait for locks, and what goes wrong there is no error of
// the command: at worst the publication lacks a table, which the feed notices.
const SetupSQL = `
CREATE SCHEMA IF NOT EXISTS cachedpg;

-- The tables whose replica identity is not what it was before: what that was, and
-- the one that they were given; NULL for a table that the publication leaves out.
CREATE TABLE IF NOT EXISTS cachedpg.identities (relation pg_catalog.regclass PRIMARY KEY, before pg_catalog."char" NOT NULL, given pg_catalog."char");
GRANT USAGE ON SCHEMA cachedpg TO PUBLIC;
GRANT SELECT ON cachedpg.identities TO PUBLIC;

-- Makes the publication, or mends it.
CREATE OR REPLACE FUNCTION cachedpg.publish(strict pg_catalog.bool) RETURNS pg_catalog.void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET cachedpg.looking = 'on' AS $$
DECLARE
	p record;
	t regclass;
	whole boolean := NOT EXISTS (SELECT FROM cachedpg.identities WHERE given IS NULL);
	options text := 'publish = ''insert, update, delete, truncate'', publish_via_partition_root = false'
		|| CASE WHEN current_setting('server_version_num')::int >= 180000 THEN ', publish_generated_columns = stored' ELSE '' END;
BEGIN
	SELECT o.oid, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot
		AND coalesce(to_jsonb(o)->>'pubgencols', 's') = 's' AS good
		INTO p FROM pg_publication o WHERE pubname = 'cachedpg';
	IF p.oid IS NULL AND NOT strict THEN
		RETURN; -- somebody has dropped it
	END IF;
	IF p.oid IS NOT NULL AND (p.puballtables <> whole
		OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND (to_jsonb(r)->>'prqual' IS NOT NULL OR to_jsonb(r)->>'prattrs' IS NOT NULL))
		OR NOT whole AND EXISTS (SELECT FROM pg_get_publication_tables('cachedpg') g JOIN cachedpg.identities i ON i.relation = g.relid WHERE i.given IS NULL)) THEN
		DROP PUBLICATION cachedpg;
		p.oid := NULL;
	END IF;
	IF p.oid IS NULL THEN
		EXECUTE 'CREATE PUBLICATION cachedpg ' || CASE WHEN whole THEN 'FOR ALL TABLES ' ELSE '' END || 'WITH (' || options || ')';
	ELSIF NOT p.good THEN
		EXECUTE 'ALTER PUBLICATION cachedpg SET (' || options || ')';
	END IF;
	IF whole THEN
		RETURN;
	END IF;
	FOR t IN SELECT c.oid FROM pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
		AND NOT EXISTS (SELECT FROM cachedpg.identities i WHERE i.relation = c.oid AND i.given IS NULL)
		AND c.oid NOT IN (SELECT g.relid FROM pg_get_publication_tables('cachedpg') g) LOOP
		BEGIN
			EXECUTE format('ALTER PUBLICATION cachedpg ADD TABLE ONLY %s', t);
		EXCEPTION WHEN OTHERS THEN
			IF strict THEN
				RAISE;
			END IF;
		END;
	END LOOP;
END $$;

-- Sees to it that every UPDATE and DELETE is taken that PostgreSQL took before: of
-- these tables, of those of these indexes and of what inherits from them, or of all.
CREATE OR REPLACE FUNCTION cachedpg.look(these pg_catalog.oid[], strict pg_catalog.bool) RETURNS pg_catalog.void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET cachedpg.looking = 'on' AS $$
DECLARE
	t record;
	want "char";
	lists boolean := EXISTS (SELECT FROM cachedpg.identities WHERE given IS NULL);
BEGIN
	DELETE FROM cachedpg.identities i WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.relation);
	-- What somebody has chosen since is his.
	DELETE FROM cachedpg.identities i USING pg_class c WHERE c.oid = i.relation AND i.given <> c.relreplident;
	FOR t IN
		WITH RECURSIVE named AS (
			SELECT coalesce(i.indrelid, n.oid) AS oid FROM unnest(these) n(oid) LEFT JOIN pg_index i ON i.indexrelid = n.oid
			UNION SELECT h.inhrelid FROM named JOIN pg_inherits h ON h.inhparent = named.oid
		)
		SELECT c.oid::regclass AS relation, c.relkind = 'p' AS empty, c.relreplident AS now, r.before, r.given, r.relation IS NOT NULL AS known,
			k.keyed, k.index, v.virtual, CASE c.relreplident WHEN 'd' THEN k.keyed WHEN 'i' THEN k.chosen WHEN 'f' THEN NOT v.virtual ELSE false END AS served
		FROM pg_class c LEFT JOIN cachedpg.identities r ON r.relation = c.oid
		CROSS JOIN LATERAL (
			SELECT coalesce(bool_or(i.indisprimary), false) AS keyed, coalesce(bool_or(i.indisreplident), false) AS chosen,
				min(i.indexrelid::int8) FILTER (WHERE i.indexprs IS NULL AND NOT EXISTS (SELECT FROM pg_attribute a
					WHERE a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND NOT a.attnotnull)) AS index
			FROM pg_index i WHERE i.indrelid = c.oid AND i.indislive AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
		) k
		CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped) AS virtual) v
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND (these IS NULL OR c.oid IN (SELECT named.oid FROM named))
	LOOP
		CONTINUE WHEN t.served AND (NOT t.known OR t.given = 'd' OR t.given IS NOT NULL AND NOT t.keyed);
		want := CASE WHEN t.served AND t.given IS NULL THEN t.now WHEN t.keyed THEN 'd' WHEN NOT t.virtual THEN 'f' WHEN t.index IS NOT NULL THEN 'i' END;
		IF want <> t.now OR NOT t.served AND want IS NOT NULL THEN
			BEGIN
				EXECUTE format('ALTER TABLE %s REPLICA IDENTITY ', t.relation) || CASE want WHEN 'd' THEN 'DEFAULT' WHEN 'f' THEN 'FULL'
					ELSE format('USING INDEX %I', (SELECT relname FROM pg_class WHERE oid = t.index::oid)) END;
			EXCEPTION WHEN OTHERS THEN
				IF strict THEN
					RAISE;
				END IF;
				CONTINUE WHEN t.served;
				want := NULL;
			END;
		END IF;
		IF want IS NOT NULL AND (want = t.now AND t.served OR want = t.before OR want = 'd' AND t.before = 'i') THEN
			DELETE FROM cachedpg.identities WHERE relation = t.relation;
		ELSIF want IS NOT NULL OR NOT t.empty THEN
			INSERT INTO cachedpg.identities VALUES (t.relation, t.now, want) ON CONFLICT (relation) DO UPDATE SET given = excluded.given;
		END IF;
		IF want IS NULL AND t.given IN ('f', 'd') AND t.before IN ('d', 'n') THEN
			BEGIN -- nothing is left that it would be for
				EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', t.relation, CASE t.before WHEN 'd' THEN 'DEFAULT' ELSE 'NOTHING' END);
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END IF;
	END LOOP;
	IF strict OR lists OR EXISTS (SELECT FROM cachedpg.identities WHERE given IS NULL) THEN
		PERFORM cachedpg.publish(strict);
	END IF;
END $$;

-- Tells who follows the log of changes of the schema, which it does not show.
CREATE OR REPLACE FUNCTION cachedpg.tell_ddl() RETURNS pg_catalog.event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on SET lock_timeout = '200ms' AS $$
DECLARE
	o record;
	told boolean := false;
	changed oid[] := '{}';
	looking boolean := coalesce(current_setting('cachedpg.looking', true), '') = 'on'; -- it is a command of cachedpg.look
BEGIN
	IF tg_event = 'sql_drop' THEN
		SELECT count(*) > 0 AS told, array_agg(objid) FILTER (WHERE objsubid = 0) AS gone,
			bool_or(object_type IN ('index', 'table constraint', 'table column')) AS lost
			INTO o FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary;
		IF o.told THEN
			PERFORM pg_logical_emit_message(true, 'cachedpg', 'ddl');
		END IF;
		IF o.told AND NOT looking THEN
			BEGIN
				IF o.lost OR EXISTS (SELECT FROM cachedpg.identities WHERE relation = ANY (o.gone)) THEN
					PERFORM cachedpg.look(NULL, false);
				END IF;
			EXCEPTION WHEN OTHERS THEN
				NULL;
			END;
		END IF;
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
			changed := changed || o.objid;
		END IF;
	END LOOP;
	IF looking OR changed = '{}' THEN
		RETURN;
	END IF;
	BEGIN
		-- That the identity is named which a table has already leaves no other trace.
		IF tg_tag = 'ALTER TABLE' AND current_query() ~* '\mreplica\s+identity\M' THEN
			DELETE FROM cachedpg.identities i USING pg_class c WHERE c.oid = i.relation AND i.relation = ANY (changed) AND i.given IS NOT NULL
				AND current_query() ~* ('\mexecute\M|\m' || regexp_replace(c.relname, '\W', '\\\&', 'g') || '\M[^;]*\mreplica\s+identity\M');
		END IF;
		PERFORM cachedpg.look(changed, false);
	EXCEPTION WHEN OTHERS THEN
		NULL;
	END;
END $$;

DROP FUNCTION IF EXISTS cachedpg.identify(pg_catalog.oid); -- of an earlier version
REVOKE ALL ON FUNCTION cachedpg.publish(pg_catalog.bool), cachedpg.look(pg_catalog.oid[], pg_catalog.bool), cachedpg.tell_ddl() FROM PUBLIC;

DROP EVENT TRIGGER IF EXISTS cachedpg_ddl;
CREATE EVENT TRIGGER cachedpg_ddl ON ddl_command_end EXECUTE FUNCTION cachedpg.tell_ddl();
ALTER EVENT TRIGGER cachedpg_ddl ENABLE ALWAYS;
DROP EVENT TRIGGER IF EXISTS cachedpg_drop;
CREATE EVENT TRIGGER cachedpg_drop ON sql_drop EXECUTE FUNCTION cachedpg.tell_ddl();
ALTER EVENT TRIGGER cachedpg_drop ENABLE ALWAYS;

SELECT cachedpg.look(NULL, true);
`

// LookSQL looks again at all tables, once those that were made by transactions that
// were open during the setup are there.
const LookSQL = "SELECT cachedpg.look(NULL, true)"

// RemoveSQL takes away what SetupSQL has made, and gives tables the replica
// identity back that they had. The schema is left if there is more in it. It can
// be run again, and needs what the setup needs.
const RemoveSQL = `
DROP EVENT TRIGGER IF EXISTS cachedpg_ddl;
DROP EVENT TRIGGER IF EXISTS cachedpg_drop;
DROP PUBLICATION IF EXISTS cachedpg;
DO $$
DECLARE
	t record;
BEGIN
	IF pg_catalog.to_regclass('cachedpg.identities') IS NOT NULL THEN
		FOR t IN SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, i.before
			FROM cachedpg.identities i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.relation JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
			WHERE c.relreplident OPERATOR(pg_catalog.=) i.given LOOP
			EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY %s', t.name, CASE WHEN t.before OPERATOR(pg_catalog.=) 'f' THEN 'FULL' WHEN t.before OPERATOR(pg_catalog.=) 'n' THEN 'NOTHING' ELSE 'DEFAULT' END);
		END LOOP;
		DROP TABLE cachedpg.identities;
		REVOKE USAGE ON SCHEMA cachedpg FROM PUBLIC;
	END IF;
	DROP FUNCTION IF EXISTS cachedpg.tell_ddl();
	DROP FUNCTION IF EXISTS cachedpg.look(pg_catalog.oid[], pg_catalog.bool);
	DROP FUNCTION IF EXISTS cachedpg.publish(pg_catalog.bool);
	DROP FUNCTION IF EXISTS cachedpg.identify(pg_catalog.oid);
	BEGIN
		DROP SCHEMA IF EXISTS cachedpg;
	EXCEPTION WHEN dependent_objects_still_exist THEN
		NULL;
	END;
END $$;
`

// RemoveSlotsSQL ends the feeds that follow the log of the database, and drops what
// is left of their slots. It asks how many there were.
const RemoveSlotsSQL = `SELECT pg_catalog.count(CASE WHEN active THEN pg_catalog.pg_terminate_backend(active_pid)::pg_catalog.text
	ELSE pg_catalog.pg_drop_replication_slot(slot_name)::pg_catalog.text END)
	FROM pg_catalog.pg_replication_slots WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database() AND slot_name OPERATOR(pg_catalog.~) '^cachedpg_[0-9a-f]{16}$'`
