package writes

import "time"

// The corpus of the precision table: statements as gorm, ent, bun, sqlc, sqlx
// with squirrel, and people write them, on the schema in testdata/precision.
//
// Beside each statement stands what it is about, in words of this kind:
//
//	users#1    the row of users with the primary key 1
//	users~ann  the row with that unique value; whether it is users#1, no text says
//	users+     rows that are new to users
//	users*     any rows of users
//
// For a read this is what its answer depends on, for a write what it changes, by
// triggers and foreign keys too, as far as texts can tell. A write that has
// nothing to do with a read must keep its answer.

// precisionRead is a question, asked again after every write.
type precisionRead struct {
	name  string
	from  string
	about string
	asked
}

// precisionWrite is what one transaction does, or one statement without one.
type precisionWrite struct {
	name  string
	from  string
	about string
	ends
	calls []asked
}

// ends says how a write becomes visible.
type ends uint8

const (
	alone ends = iota // a statement outside of transactions
	inTx
	rolledBack
)

// asked is a statement with its arguments.
type asked struct {
	sql  string
	args []any
}

func ask(sql string, args ...any) asked { return asked{sql, args} }

func do(calls ...asked) []asked { return calls }

var (
	moment = time.Date(2024, 5, 1, 12, 30, 0, 0, time.UTC)
	order1 = "aaaaaaaa-0000-0000-0000-000000000001"
	token1 = "11111111-1111-1111-1111-111111111111"
	token2 = "22222222-2222-2222-2222-222222222222"
)

var precisionReads = []precisionRead{
	// By key.
	{"user 1", "gorm", "users#1",
		ask(`SELECT * FROM "users" WHERE "users"."id" = $1 AND "users"."deleted_at" IS NULL ORDER BY "users"."id" LIMIT $2`, 1, 1)},
	{"user 2", "ent", "users#2",
		ask(`SELECT "users"."id", "users"."email", "users"."name", "users"."posts_count" FROM "users" WHERE "users"."id" = $1 LIMIT 2`, 2)},
	{"user 3", "bun", "users#3",
		ask(`SELECT "u"."id", "u"."email", "u"."name" FROM "users" AS "u" WHERE ("u"."id" = 3) AND "u"."deleted_at" IS NULL`)},
	{"user 1 by e-mail", "sqlc", "users~ann",
		ask("-- name: GetUserByEmail :one\nSELECT id, email, name FROM users\nWHERE email = $1 LIMIT 1", "ann@example.com")},
	{"user 2 by e-mail", "gorm", "users~bob",
		ask(`SELECT * FROM "users" WHERE email = $1 AND "users"."deleted_at" IS NULL ORDER BY "users"."id" LIMIT $2`, "bob@example.com", 1)},
	{"no such user", "sqlx", "users*",
		ask("SELECT id, email, name FROM users WHERE id=$1", 99)},
	{"session 1", "sqlx", "sessions#1",
		ask("SELECT token, user_id FROM sessions WHERE token = $1", token1)},
	{"user of session 2", "hand", "sessions#2 users*",
		ask("SELECT u.id, u.name FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token = $1", token2)},
	{"post 1", "sqlc", "posts#1",
		ask("-- name: GetPost :one\nSELECT id, user_id, slug, title, body, views, version FROM posts\nWHERE id = $1 LIMIT 1", 1)},
	{"post 3", "gorm", "posts#3",
		ask(`SELECT * FROM "posts" WHERE "posts"."deleted_at" IS NULL AND "posts"."id" = 3`)},
	{"post 2 by slug", "squirrel", "posts~second",
		ask("SELECT id, slug, title FROM posts WHERE deleted_at IS NULL AND slug = $1", "second")},
	{"post 1 with its user", "gorm", "posts#1 users*",
		ask(`SELECT "posts"."id","posts"."title","User"."id" AS "User__id","User"."name" AS "User__name" FROM "posts" LEFT JOIN "users" "User" ON "posts"."user_id" = "User"."id" WHERE "posts"."id" = $1`, 1)},
	{"post 1 and user 1", "hand", "posts#1 users#1",
		ask("SELECT p.title, u.name FROM posts p JOIN users u ON u.id = $2 AND u.id = p.user_id WHERE p.id = $1", 1, 1)},
	{"user 1 with counts", "hand", "users#1 posts* orders*",
		ask("SELECT u.name, (SELECT count(*) FROM posts WHERE user_id = u.id) AS posts, EXISTS (SELECT FROM orders o WHERE o.user_id = u.id) AS buys FROM users u WHERE u.id = $1", 1)},
	{"comment 1", "ent", "comments#1",
		ask(`SELECT "comments"."id", "comments"."body", "comments"."post_id" FROM "comments" WHERE "comments"."id" = $1 LIMIT 2`, 1)},
	{"product 1", "bun", "products#1",
		ask(`SELECT "product"."id", "product"."sku", "product"."name", "product"."price", "product"."stock", "product"."labels" FROM "products" AS "product" WHERE ("product"."id" = 1)`)},
	{"product 2 by SKU", "sqlc", "products~ink",
		ask("-- name: GetProductBySKU :one\nSELECT id, sku, name, price, stock FROM products WHERE sku = $1", "ink")},
	{"products 1 and 3", "gorm", "products#1 products#3",
		ask(`SELECT * FROM "products" WHERE "products"."id" IN ($1,$2)`, 1, 3)},
	{"users 2 and 3", "sqlc", "users#2 users#3",
		ask("-- name: ListUsersByIDs :many\nSELECT id, name FROM users WHERE id = ANY($1::bigint[])", []int64{2, 3})},
	{"order 1", "ent", "orders#1",
		ask(`SELECT "orders"."id", "orders"."status", "orders"."user_id" FROM "orders" WHERE "orders"."id" = $1 LIMIT 2`, order1)},
	{"order 2", "bun", "orders#2",
		ask(`SELECT "order"."id", "order"."user_id", "order"."status" FROM "orders" AS "order" WHERE ("order"."id" = 'aaaaaaaa-0000-0000-0000-000000000002')`)},
	{"item 1,1", "sqlx", "order_items#1,1",
		ask("SELECT quantity, price FROM order_items WHERE order_id = $1 AND product_id = $2", order1, 1)},
	{"item 1,2", "hand", "order_items#1,2",
		ask("SELECT quantity, price FROM order_items WHERE (order_id, product_id) = ($1, $2)", order1, 2)},
	{"setting motto", "sqlx", "settings#motto",
		ask("SELECT value FROM settings WHERE key = $1", "motto")},
	{"event 1", "hand", "events*",
		ask("SELECT kind, payload FROM events WHERE id = $1 AND day = $2", 1, moment)},

	// Lists, counts, pages.
	{"posts of user 1", "gorm", "posts*",
		ask(`SELECT * FROM "posts" WHERE "posts"."user_id" = $1 AND "posts"."deleted_at" IS NULL`, 1)},
	{"posts of users 1, 2", "ent", "posts*",
		ask(`SELECT "posts"."id", "posts"."title", "posts"."user_id" FROM "posts" WHERE "posts"."user_id" IN ($1, $2)`, 1, 2)},
	{"number of users", "gorm", "users*",
		ask(`SELECT count(*) FROM "users" WHERE "users"."deleted_at" IS NULL`)},
	{"number of user 1's posts", "ent", "posts*",
		ask(`SELECT COUNT("posts"."id") FROM "posts" WHERE "posts"."user_id" = $1`, 1)},
	{"second page of posts", "bun", "posts*",
		ask(`SELECT "p"."id", "p"."title" FROM "posts" AS "p" WHERE ("p"."deleted_at" IS NULL) ORDER BY "p"."created_at" DESC, "p"."id" DESC LIMIT 2 OFFSET 2`)},
	{"posts after post 1", "sqlc", "posts*",
		ask("-- name: ListPostsAfter :many\nSELECT id, title FROM posts WHERE id > $1 ORDER BY id LIMIT $2", 1, 10)},
	{"comments of post 1", "sqlx", "comments* users*",
		ask("SELECT c.id, c.body, u.name AS author FROM comments c LEFT JOIN users u ON u.id = c.author_id WHERE c.post_id = $1 ORDER BY c.created_at, c.id", 1)},
	{"users with posts", "ent", "users* posts*",
		ask(`SELECT "users"."id", "users"."name" FROM "users" WHERE EXISTS (SELECT "posts"."user_id" FROM "posts" WHERE "users"."id" = "posts"."user_id")`)},
	{"is a slug taken", "hand", "posts*",
		ask("SELECT EXISTS(SELECT 1 FROM posts WHERE slug = $1)", "first")},
	{"products by label", "squirrel", "products*",
		ask("SELECT id, name FROM products WHERE labels @> $1 AND attributes->>'color' = $2 ORDER BY id", []string{"office"}, "blue")},
	{"products like a name", "gorm", "products*",
		ask(`SELECT * FROM "products" WHERE name ILIKE $1 ORDER BY price desc,id LIMIT $2`, "%p%", 20)},
	{"tags of product 1", "ent", "tags* product_tags*",
		ask(`SELECT "tags"."id", "tags"."name", "t1"."product_id" FROM "tags" JOIN "product_tags" AS "t1" ON "tags"."id" = "t1"."tag_id" WHERE "t1"."product_id" IN ($1)`, 1)},
	{"tag ids of product 1", "gorm", "product_tags*",
		ask(`SELECT * FROM "product_tags" WHERE "product_tags"."product_id" = $1`, 1)},
	{"orders of user 1", "bun", "orders*",
		ask(`SELECT "order"."id", "order"."status" FROM "orders" AS "order" WHERE ("order"."user_id" = 1) AND ("order"."status" IN ('pending', 'paid')) ORDER BY "order"."placed_at", "order"."id"`)},
	{"order 1 with items", "sqlc", "orders#1 order_items* products*",
		ask("-- name: OrderLines :many\nSELECT o.id, i.quantity, i.price, p.name FROM orders o JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id WHERE o.id = $1 ORDER BY p.id", order1)},
	{"orders by status", "hand", "orders*",
		ask("SELECT status, count(*) FROM orders GROUP BY status ORDER BY status")},
	{"top sellers", "hand", "order_items* products*",
		ask("WITH sold AS (SELECT product_id, sum(quantity) AS n FROM order_items GROUP BY product_id) SELECT p.name, s.n FROM sold s JOIN products p ON p.id = s.product_id ORDER BY s.n DESC, p.id LIMIT 3")},
	{"all settings", "sqlx", "settings*",
		ask("SELECT key, value FROM settings ORDER BY key")},
	{"events of a day", "hand", "events*",
		ask("SELECT id, kind FROM events WHERE day = $1 ORDER BY id", moment)},
	{"audit log", "hand", "audit_log*",
		ask("SELECT table_name, operation FROM audit_log ORDER BY id DESC LIMIT 50")},

	// Through views.
	{"active user 1", "sqlc", "users#1",
		ask("-- name: GetActiveUser :one\nSELECT * FROM active_users WHERE id = $1", 1)},
	{"active user 2 by e-mail", "gorm", "users~bob",
		ask(`SELECT * FROM "active_users" WHERE email = $1 ORDER BY "active_users"."id" LIMIT $2`, "bob@example.com", 1)},
	{"public post 1", "sqlx", "posts#1 users*",
		ask("SELECT heading, author FROM public_posts WHERE post_id = $1", 1)},
	{"public post 3 of user 2", "sqlx", "posts#3 users#2",
		ask("SELECT heading, author FROM public_posts WHERE post_id = $1 AND author_id = $2", 3, 2)},
	{"active users", "bun", "users*",
		ask(`SELECT "u"."id", "u"."name" FROM "active_users" AS "u" ORDER BY "u"."id"`)},
	{"total of order 1", "hand", "orders#1 order_items*",
		ask("SELECT total FROM order_totals WHERE order_id = $1", order1)},
}

var precisionWrites = []precisionWrite{
	// Users.
	{"rename user 2", "gorm", "users#2", inTx, do(
		ask(`UPDATE "users" SET "name"=$1,"updated_at"=$2 WHERE "id" = $3 AND "users"."deleted_at" IS NULL`, "Bert", moment, 2))},
	{"rename user 2", "ent", "users#2", inTx, do(
		ask(`UPDATE "users" SET "name" = $1, "updated_at" = $2 WHERE "id" = $3`, "Bert", moment, 2),
		ask(`SELECT "id", "email", "name", "posts_count" FROM "users" WHERE "id" = $1`, 2))},
	{"rename user 2", "bun", "users#2", alone, do(
		ask(`UPDATE "users" AS "u" SET "name" = 'Bert' WHERE ("u"."id" = 2)`))},
	{"rename user 2", "sqlc", "users#2", alone, do(
		ask("-- name: RenameUser :one\nUPDATE users SET name = $2 WHERE id = $1 RETURNING id, email, name", 2, "Bert"))},
	{"save user 2", "gorm", "users#2", inTx, do(
		ask(`UPDATE "users" SET "email"=$1,"name"=$2,"posts_count"=$3,"settings"=$4,"created_at"=$5,"updated_at"=$6,"deleted_at"=$7 WHERE "users"."deleted_at" IS NULL AND "id" = $8`,
			"bert@example.com", "Bert", 1, "{}", moment, moment, nil, 2))},
	{"soft-delete user 4", "gorm", "users#4", inTx, do(
		ask(`UPDATE "users" SET "deleted_at"=$1 WHERE "users"."id" = $2 AND "users"."deleted_at" IS NULL`, moment, 4))},
	{"delete user 4", "ent", "users* sessions* posts* comments*", alone, do(
		ask(`DELETE FROM "users" WHERE "users"."id" = $1`, 4))},
	{"new user", "gorm", "users+", inTx, do(
		ask(`INSERT INTO "users" ("email","name","posts_count","settings","created_at","updated_at","deleted_at") VALUES ($1,$2,$3,$4,$5,$6,$7) RETURNING "id"`,
			"eve@example.com", "Eve", 0, "{}", moment, moment, nil))},
	{"two new users", "ent", "users+", alone, do(
		ask(`INSERT INTO "users" ("email", "name") VALUES ($1, $2), ($3, $4) RETURNING "id"`, "eve@example.com", "Eve", "fay@example.com", "Fay"))},
	{"upsert user 2 by id", "gorm", "users#2", inTx, do(
		ask(`INSERT INTO "users" ("email","name","id") VALUES ($1,$2,$3) ON CONFLICT ("id") DO UPDATE SET "name"="excluded"."name" RETURNING "id"`,
			"bob@example.com", "Bert", 2))},
	{"upsert user 2 by e-mail", "sqlc", "users~bob", alone, do(
		ask("-- name: UpsertUser :one\nINSERT INTO users (email, name) VALUES ($1, $2)\nON CONFLICT (email) DO UPDATE SET name = EXCLUDED.name\nRETURNING id, email, name", "bob@example.com", "Bert"))},
	{"user 2 unless there", "bun", "users+", alone, do(
		ask(`INSERT INTO "users" ("id", "email", "name") VALUES (2, 'bob@example.com', 'Bert') ON CONFLICT ("id") DO NOTHING`))},
	{"rename active user 2", "hand", "users#2", alone, do(
		ask("UPDATE active_users SET name = $1 WHERE id = $2", "Bert", 2))},
	{"rename all users", "hand", "users*", alone, do(
		ask("UPDATE users SET name = upper(name) WHERE deleted_at IS NULL"))},
	{"log in", "sqlx", "sessions+", alone, do(
		ask("INSERT INTO sessions (token, user_id, expires_at) VALUES ($1, $2, $3)", "33333333-3333-3333-3333-333333333333", 3, moment))},
	{"log out", "sqlx", "sessions#2", alone, do(
		ask("DELETE FROM sessions WHERE token = $1", token2))},

	// Posts.
	{"new post of user 1", "gorm", "posts+ users*", inTx, do(
		ask(`INSERT INTO "posts" ("user_id","slug","title","body","views","version","created_at","updated_at","deleted_at") VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9) RETURNING "id"`,
			1, "fourth", "Fourth", "", 0, 1, moment, moment, nil))},
	{"edit post 1 at version 1", "hand", "posts#1", alone, do(
		ask("UPDATE posts SET title = $1, version = version + 1 WHERE id = $2 AND version = $3", "Primary", 1, 1))},
	{"edit post 1 at version 1 as a row", "hand", "posts#1", alone, do(
		ask("UPDATE posts SET title = $1, version = version + 1 WHERE (id, version) = ($2, $3)", "Primary", 1, 1))},
	{"count a view of post 1", "sqlx", "posts#1", alone, do(
		ask("UPDATE posts SET views = views + 1 WHERE id = $1", 1))},
	{"edit posts 1 and 2", "hand", "posts#1 posts#2", alone, do(
		ask("UPDATE posts SET views = views + 1 WHERE id = $1 OR id = $2", 1, 2))},
	{"edit post 1 by sub-select", "hand", "posts#1", alone, do(
		ask("UPDATE posts SET views = views + 1 WHERE id = (SELECT $1::bigint)", 1))},
	{"edit post 2 by slug", "squirrel", "posts~second", alone, do(
		ask("UPDATE posts SET title = $1 WHERE slug = $2", "Secondary", "second"))},
	{"soft-delete post 1", "gorm", "posts#1", inTx, do(
		ask(`UPDATE "posts" SET "deleted_at"=$1 WHERE "posts"."id" = $2 AND "posts"."deleted_at" IS NULL`, moment, 1))},
	{"delete post 3", "sqlc", "posts#3 comments* users*", alone, do(
		ask("-- name: DeletePost :exec\nDELETE FROM posts WHERE id = $1", 3))},
	{"delete posts 2 and 3", "gorm", "posts#2 posts#3 comments* users*", inTx, do(
		ask(`DELETE FROM "posts" WHERE "posts"."id" IN ($1,$2)`, 2, 3))},
	{"new comment", "ent", "comments+", alone, do(
		ask(`INSERT INTO "comments" ("body", "post_id", "author_id") VALUES ($1, $2, $3) RETURNING "id"`, "well", 1, 2))},
	{"edit comment 2", "bun", "comments#2", alone, do(
		ask(`UPDATE "comments" AS "c" SET "body" = 'thanks!' WHERE ("c"."id" = 2)`))},
	{"delete comments of post 3", "squirrel", "comments*", alone, do(
		ask("DELETE FROM comments WHERE post_id = $1", 3))},

	// The shop.
	{"sell product 1", "ent", "products#1", alone, do(
		ask(`UPDATE "products" SET "stock" = COALESCE("products"."stock", 0) + $1 WHERE "id" = $2`, -1, 1))},
	{"price of product 2 by SKU", "sqlc", "products~ink", alone, do(
		ask("-- name: SetPrice :exec\nUPDATE products SET price = $2 WHERE sku = $1", "ink", 5.5))},
	{"import products", "bun", "products~ink products+", alone, do(
		ask(`INSERT INTO "products" ("sku", "name", "price") VALUES ('ink', 'Black ink', 4.5), ('mug', 'Mug', 8) ON CONFLICT (sku) DO UPDATE SET name = EXCLUDED.name, price = EXCLUDED.price`))},
	{"stock of products 1 and 2", "sqlc", "products#1 products#2", alone, do(
		ask("-- name: Restock :exec\nUPDATE products SET stock = stock + 10 WHERE id = ANY($1::int[])", []int32{1, 2}))},
	{"prices from a list", "hand", "products*", alone, do(
		ask("UPDATE products AS p SET price = v.price FROM (VALUES (1, 2.0), (2, 6.0)) AS v (id, price) WHERE p.id = v.id"))},
	{"tag product 1", "gorm", "product_tags+", inTx, do(
		ask(`INSERT INTO "product_tags" ("product_id","tag_id") VALUES ($1,$2) ON CONFLICT DO NOTHING`, 1, 3))},
	{"untag product 1", "gorm", "product_tags*", inTx, do(
		ask(`DELETE FROM "product_tags" WHERE "product_tags"."product_id" = $1 AND "product_tags"."tag_id" IN ($2)`, 1, 2))},
	{"new tag", "ent", "tags+", alone, do(
		ask(`INSERT INTO "tags" ("name") VALUES ($1) RETURNING "id"`, "sale"))},
	{"tag unless there", "sqlx", "tags+", alone, do(
		ask("INSERT INTO tags (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", "gift"))},
	{"place an order", "sqlx", "orders+ order_items+ products#1 audit_log+", inTx, do(
		ask("INSERT INTO orders (id, user_id) VALUES ($1, $2)", "aaaaaaaa-0000-0000-0000-000000000003", 3),
		ask("INSERT INTO order_items (order_id, product_id, quantity, price) VALUES ($1, $2, $3, $4)", "aaaaaaaa-0000-0000-0000-000000000003", 1, 1, 1.5),
		ask("UPDATE products SET stock = stock - $2 WHERE id = $1", 1, 1))},
	{"pay order 1", "ent", "orders#1 audit_log+", inTx, do(
		ask(`UPDATE "orders" SET "status" = $1 WHERE "id" = $2`, "paid", order1),
		ask(`SELECT "id", "status", "user_id" FROM "orders" WHERE "id" = $1`, order1))},
	{"delete order 2", "bun", "orders#2 order_items* audit_log+", alone, do(
		ask(`DELETE FROM "orders" AS "order" WHERE ("order"."id" = 'aaaaaaaa-0000-0000-0000-000000000002')`))},
	{"quantity of item 1,1", "sqlx", "order_items#1,1", alone, do(
		ask("UPDATE order_items SET quantity = $3 WHERE order_id = $1 AND product_id = $2", order1, 1, 5))},
	{"upsert item 1,1", "hand", "order_items#1,1", alone, do(
		ask("INSERT INTO order_items (order_id, product_id, quantity, price) VALUES ($1, $2, $3, $4) ON CONFLICT (order_id, product_id) DO UPDATE SET quantity = order_items.quantity + excluded.quantity", order1, 1, 1, 1.5))},
	{"claim a pending order", "hand", "orders* audit_log+", alone, do(
		ask("UPDATE orders SET status = 'paid' WHERE id = (SELECT id FROM orders WHERE status = 'pending' ORDER BY placed_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"))},

	// The rest.
	{"set motto", "sqlx", "settings#motto", alone, do(
		ask("INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", "motto", `"goodbye"`))},
	{"set limit", "gorm", "settings#limit", inTx, do(
		ask(`INSERT INTO "settings" ("key","value") VALUES ($1,$2) ON CONFLICT ("key") DO UPDATE SET "value"="excluded"."value"`, "limit", "11"))},
	{"new event", "hand", "events+", alone, do(
		ask("INSERT INTO events (id, day, kind, payload) VALUES ($1, $2, $3, $4)", 4, moment, "login", "{}"))},
	{"prune events", "hand", "events*", alone, do(
		ask("DELETE FROM events WHERE day < $1", moment))},
	{"rename all users, rolled back", "hand", "users*", rolledBack, do(
		ask("UPDATE users SET name = upper(name)"))},
}
