package precision

import (
	"context"
	"database/sql"
	"math/rand/v2"
)

const (
	forumUsers   = 300
	forumThreads = 400
	forumPosts   = 2000
	forumTags    = 40
)

const forumTables = `
	CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL UNIQUE, posts int NOT NULL DEFAULT 0, last_seen timestamptz NOT NULL);
	CREATE TABLE threads (id int PRIMARY KEY, author_id int NOT NULL REFERENCES users, title text NOT NULL, posts int NOT NULL DEFAULT 0);
	CREATE TABLE posts (id int PRIMARY KEY, thread_id int NOT NULL REFERENCES threads, author_id int NOT NULL REFERENCES users,
		body text NOT NULL, written timestamptz NOT NULL);
	CREATE TABLE tags (id int PRIMARY KEY, name text NOT NULL UNIQUE);
	CREATE TABLE thread_tags (thread_id int REFERENCES threads, tag_id int REFERENCES tags, PRIMARY KEY (thread_id, tag_id));
	CREATE INDEX ON threads (author_id);
	CREATE INDEX ON posts (thread_id);
	CREATE INDEX ON posts (author_id);
	CREATE INDEX ON thread_tags (tag_id);

	CREATE FUNCTION count_posts() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF TG_OP <> 'DELETE' THEN
			UPDATE threads SET posts = posts + 1 WHERE id = NEW.thread_id;
			UPDATE users SET posts = posts + 1 WHERE id = NEW.author_id;
		END IF;
		IF TG_OP <> 'INSERT' THEN
			UPDATE threads SET posts = posts - 1 WHERE id = OLD.thread_id;
			UPDATE users SET posts = posts - 1 WHERE id = OLD.author_id;
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER counted AFTER INSERT OR DELETE OR UPDATE OF thread_id, author_id ON posts FOR EACH ROW EXECUTE FUNCTION count_posts();

	INSERT INTO users SELECT i, 'user ' || i, 0, '2024-01-01Z' FROM generate_series(1, 300) i;
	INSERT INTO threads SELECT i, 1 + i * 37 % 300, 'thread ' || i, 0 FROM generate_series(1, 400) i;
	INSERT INTO tags SELECT i, 'tag ' || i FROM generate_series(1, 40) i;
	INSERT INTO thread_tags SELECT i, 1 + (i * 7 + j * 3) % 40 FROM generate_series(1, 400) i, generate_series(0, 2) j;
	INSERT INTO posts SELECT i, 1 + i * 13 % 400, 1 + i * 41 % 300, 'post ' || i, '2024-01-01Z' FROM generate_series(1, 2000) i;
	ANALYZE;`

// forum has users who write posts in threads, tags of threads, and counters that a trigger keeps.
type forum struct {
	r                     *rand.Rand
	clock                 clock
	users, threads, posts *rows
}

func newForum(r *rand.Rand) application {
	f := &forum{r: r, users: numbered(r, forumUsers), threads: newestFirst(r, forumThreads), posts: newestFirst(r, forumPosts)}
	return application{name: "forum", tables: forumTables, shapes: f.shapes(), writes: f.writes()}
}

func (f *forum) tag() int { return 1 + below(f.r, forumTags) }

func (f *forum) shapes() []shape {
	return []shape{
		{"user by key", 10, "SELECT id, name, posts FROM users WHERE id = $1", one(f.users.pick)},
		{"thread by key", 8, "SELECT id, title, posts FROM threads WHERE id = $1", one(f.threads.pick)},
		{"title of a thread", 4, "SELECT title FROM threads WHERE id = $1", one(f.threads.pick)},
		{"post with its author", 6, "SELECT p.body, u.name FROM posts p JOIN users u ON u.id = p.author_id WHERE p.id = $1", one(f.posts.pick)},
		{"page of a thread", 10, `SELECT p.id, p.body, u.name FROM posts p JOIN users u ON u.id = p.author_id
			WHERE p.thread_id = $1 ORDER BY p.id LIMIT 20`, one(f.threads.pick)},
		{"number of posts of a user", 4, "SELECT count(*) FROM posts WHERE author_id = $1", one(f.users.pick)},
		{"whether a user wrote in a thread", 4, "SELECT EXISTS (SELECT 1 FROM posts WHERE thread_id = $1 AND author_id = $2)",
			func() []any { return []any{f.threads.pick(), 1 + f.r.IntN(5)} }},
		{"tags of a thread", 6, "SELECT t.id, t.name FROM thread_tags tt JOIN tags t ON t.id = tt.tag_id WHERE tt.thread_id = $1 ORDER BY t.id",
			one(f.threads.pick)},
		{"threads of a tag", 5, `SELECT t.id, t.title FROM thread_tags tt JOIN threads t ON t.id = tt.thread_id
			WHERE tt.tag_id = $1 ORDER BY t.id DESC LIMIT 20`, one(f.tag)},
		{"longest threads", 3, "SELECT id, title FROM threads ORDER BY posts DESC, id LIMIT 10", none},
	}
}

func (f *forum) writes() []change {
	return []change{
		{16, exec("UPDATE users SET last_seen = $2 WHERE id = $1", func() []any { return []any{f.users.pick(), f.clock.tick()} })},
		{16, exec("INSERT INTO posts VALUES ($1, $2, $3, 'new', $4)",
			func() []any { return []any{f.posts.add(), f.threads.pick(), f.users.pick(), f.clock.tick()} })},
		{8, exec("UPDATE posts SET body = body || '.' WHERE id = $1", one(f.posts.pick))},
		{3, exec("DELETE FROM posts WHERE id = $1", one(f.posts.remove))},
		{2, exec("UPDATE posts SET thread_id = $2 WHERE id = $1", func() []any { return []any{f.posts.pick(), f.threads.pick()} })},
		{4, inTx(f.thread)},
		{3, exec("UPDATE threads SET title = title || '.' WHERE id = $1", one(f.threads.pick))},
		{2, exec("UPDATE threads SET author_id = $2 WHERE id = $1", func() []any { return []any{f.threads.pick(), f.users.pick()} })},
		{3, exec("INSERT INTO thread_tags VALUES ($1, $2) ON CONFLICT DO NOTHING", func() []any { return []any{f.threads.pick(), f.tag()} })},
		{3, exec("DELETE FROM thread_tags WHERE thread_id = $1 AND tag_id = $2", func() []any { return []any{f.threads.pick(), f.tag()} })},
	}
}

// thread begins one, with its first post and a tag.
func (f *forum) thread(ctx context.Context, tx *sql.Tx) error {
	id, author := f.threads.add(), f.users.pick()
	if _, err := tx.ExecContext(ctx, "INSERT INTO threads VALUES ($1, $2, 'new', 0)", id, author); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO posts VALUES ($1, $2, $3, 'first', $4)", f.posts.add(), id, author, f.clock.tick()); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO thread_tags VALUES ($1, $2)", id, f.tag())
	return err
}
