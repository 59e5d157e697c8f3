-- Functions as applications have them.
CREATE FUNCTION touch() RETURNS trigger AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END;
$$ LANGUAGE plpgsql;

CREATE OR REPLACE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$
DECLARE
  before jsonb := '{}';
  after jsonb DEFAULT to_jsonb(NEW);
  who CONSTANT text NOT NULL := coalesce(current_setting('app.user', true), session_user);
BEGIN
  IF (TG_OP = 'UPDATE') THEN
    before := to_jsonb(OLD);
    SELECT jsonb_object_agg(key, value) INTO after FROM jsonb_each(after) e WHERE before -> key IS DISTINCT FROM value;
  ELSIF TG_OP = 'DELETE' THEN
    before = row_to_json(OLD)::jsonb;
  END IF;
  INSERT INTO audit_log (who, relation, before, after) VALUES (who, TG_TABLE_NAME::text, before, after);
  RETURN coalesce(NEW, OLD);
EXCEPTION
  WHEN undefined_table OR insufficient_privilege THEN
    RAISE WARNING 'not audited: % (%)', SQLERRM, SQLSTATE USING HINT = format('see %s', TG_ARGV[0]);
    RETURN NULL;
END;
$body$;

CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  delta integer;
  post_id posts.id%TYPE;
  line record;
BEGIN
  CASE TG_OP
    WHEN 'INSERT' THEN delta := 1; post_id := NEW.post_id;
    WHEN 'DELETE' THEN delta := -1; post_id := OLD.post_id;
    ELSE RETURN NULL;
  END CASE;
  UPDATE posts SET comments = comments + delta WHERE id = post_id RETURNING * INTO line;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'no post %', post_id USING ERRCODE = 'foreign_key_violation';
  END IF;
  PERFORM pg_notify('posts', post_id::text);
  RETURN NULL;
END $$;

CREATE FUNCTION rebuild(since timestamptz) RETURNS SETOF int LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  due CURSOR (at timestamptz) FOR SELECT id FROM posts WHERE posts.created_at > at FOR UPDATE;
  r record; n int[]; i int := 0;
BEGIN
  <<outer>>
  FOR r IN due(since) LOOP
    WHILE i < cardinality(n) LOOP
      i := i + 1;
      n[i] := greatest(n[i], r.id);
      EXIT outer WHEN n[i] > limit_of(r.id);
    END LOOP;
    RETURN NEXT r.id;
  END LOOP outer;
  FOR i IN REVERSE upper_bound()..1 BY 2 LOOP
    DELETE FROM drafts WHERE id = i;
  END LOOP;
  FOREACH i IN ARRAY ARRAY[1, 2, 3] LOOP
    CONTINUE WHEN i = 2;
    INSERT INTO seen VALUES (i) ON CONFLICT DO NOTHING;
  END LOOP;
  RETURN QUERY WITH gone AS (DELETE FROM posts WHERE false RETURNING id) SELECT id FROM gone;
  GET DIAGNOSTICS i = ROW_COUNT;
  ASSERT i = 0, 'none ' || describe(i);
END $$;

CREATE PROCEDURE purge(batch int) LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
  LOOP
    DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < now() - interval '1 year' LIMIT batch);
    GET DIAGNOSTICS n = ROW_COUNT;
    COMMIT;
    EXIT WHEN n = 0;
  END LOOP;
  CALL refresh(batch);
END $$;
