package questions

// Shadows makes a schema with a name for every function, operator, aggregate, type and
// relation of pg_catalog, each with the same types, so that it is preferred where the
// schema comes first on the path. Whatever of it runs says so in a warning, and does
// nothing. What PostgreSQL does not let be made in PL/pgSQL is left out.
const Shadows = `
	CREATE SCHEMA shadow;
	CREATE SCHEMA shadowing;
	CREATE FUNCTION shadowing.says(what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'shadow: %', what; RETURN true; END $$;
	DO $do$ DECLARE
		item record;
		made int := 0;
		body text := 'LANGUAGE plpgsql AS $f$ BEGIN RAISE WARNING %L; RETURN %s; END $f$';
	BEGIN
		SET LOCAL search_path = pg_catalog;
		SET LOCAL check_function_bodies = off;
		FOR item IN
			SELECT 'function' AS kind, format('CREATE FUNCTION shadow.%I(%s) RETURNS %s%s ', proname, replace(oidvectortypes(proargtypes), '"any"', 'anyelement'),
				CASE WHEN proretset THEN 'SETOF ' END, format_type(prorettype, NULL))
				|| format(body, 'shadow: function ' || proname, CASE WHEN NOT proretset AND prorettype <> 'void'::regtype THEN 'NULL' END) AS sql
			FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
				AND NOT prorettype = ANY ('{internal,trigger,event_trigger,cstring}'::regtype[]) AND NOT '{internal,cstring}'::regtype[]::oid[] && proargtypes::oid[]
			UNION ALL
			SELECT 'aggregate', format('CREATE FUNCTION shadowing.%I(text%s) RETURNS text ', 'a' || p.oid, ', ' || nullif(replace(oidvectortypes(proargtypes), '"any"', 'anyelement'), ''))
				|| format(body, 'shadow: aggregate ' || proname, 'NULL')
				|| format('; CREATE FUNCTION shadowing.%I(text) RETURNS text ', 'f' || p.oid) || format(body, 'shadow: aggregate ' || proname, 'NULL')
				|| format('; CREATE AGGREGATE shadow.%I(%s) (SFUNC = shadowing.a%s, STYPE = text, FINALFUNC = shadowing.f%s)', proname,
					coalesce(nullif(replace(oidvectortypes(proargtypes), '"any"', 'anyelement'), ''), '*'), p.oid, p.oid)
			FROM pg_proc p JOIN pg_aggregate g ON g.aggfnoid = p.oid WHERE aggkind = 'n'
			UNION ALL
			SELECT 'operator', format('CREATE FUNCTION shadowing.o%s(%s) RETURNS %s ', o.oid, concat_ws(', ', nullif(oprleft, 0)::regtype, nullif(oprright, 0)::regtype), oprresult::regtype)
				|| format(body, 'shadow: operator ' || oprname, 'NULL')
				|| format('; CREATE OPERATOR shadow.%s (%s FUNCTION = shadowing.o%s)', oprname,
					concat('LEFTARG = ' || nullif(oprleft, 0)::regtype || ', ', 'RIGHTARG = ' || nullif(oprright, 0)::regtype || ', '), o.oid)
			FROM pg_operator o WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprcode <> 0
			UNION ALL
			SELECT 'type', format('CREATE DOMAIN shadow.%I AS pg_catalog.%I CHECK (shadowing.says(%L))', typname, typname, 'type ' || typname)
			FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b' AND typelem = 0
			UNION ALL
			SELECT 'relation', format('CREATE VIEW shadow.%I AS SELECT * FROM pg_catalog.%I WHERE shadowing.says(%L)', relname, relname, 'relation ' || relname)
			FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')
		LOOP
			BEGIN
				EXECUTE item.sql;
				made := made + 1;
			EXCEPTION WHEN OTHERS THEN NULL;
			END;
		END LOOP;
		IF made < 3000 THEN RAISE EXCEPTION 'only % names are shadowed', made; END IF;
	END $do$;`
