-- The rows that every write finds. The triggers stand still meanwhile.

SET session_replication_role = replica;

DELETE FROM users; DELETE FROM sessions; DELETE FROM posts; DELETE FROM comments;
DELETE FROM products; DELETE FROM tags; DELETE FROM product_tags;
DELETE FROM orders; DELETE FROM order_items; DELETE FROM audit_log;
DELETE FROM settings; DELETE FROM events;

INSERT INTO users (id, email, name, posts_count, settings) VALUES
	(1, 'ann@example.com', 'Ann', 2, '{"theme": "dark"}'), (2, 'bob@example.com', 'Bob', 1, '{}'),
	(3, 'cid@example.com', 'Cid', 0, '{}'), (4, 'dee@example.com', 'Dee', 0, '{}');
INSERT INTO sessions (token, user_id, expires_at) VALUES
	('11111111-1111-1111-1111-111111111111', 1, '2030-01-01'), ('22222222-2222-2222-2222-222222222222', 2, '2030-01-01');
INSERT INTO posts (id, user_id, slug, title) VALUES
	(1, 1, 'first', 'First'), (2, 1, 'second', 'Second'), (3, 2, 'third', 'Third');
INSERT INTO comments (id, post_id, author_id, body) VALUES
	(1, 1, 2, 'nice'), (2, 1, 1, 'thanks'), (3, 3, 1, 'so?');
INSERT INTO products (id, sku, name, price, stock, labels, attributes) VALUES
	(1, 'pen', 'Pen', 1.50, 100, '{office,blue}', '{"color": "blue"}'), (2, 'ink', 'Ink', 5.00, 20, '{office}', '{}'),
	(3, 'cup', 'Cup', 7.25, 3, '{kitchen}', '{"color": "white"}');
INSERT INTO tags (id, name) VALUES (1, 'paper'), (2, 'gift'), (3, 'new');
INSERT INTO product_tags (product_id, tag_id) VALUES (1, 1), (1, 2), (2, 1);
INSERT INTO orders (id, user_id, status) VALUES
	('aaaaaaaa-0000-0000-0000-000000000001', 1, 'pending'), ('aaaaaaaa-0000-0000-0000-000000000002', 2, 'paid');
INSERT INTO order_items (order_id, product_id, quantity, price) VALUES
	('aaaaaaaa-0000-0000-0000-000000000001', 1, 2, 1.50), ('aaaaaaaa-0000-0000-0000-000000000001', 2, 1, 5.00),
	('aaaaaaaa-0000-0000-0000-000000000002', 3, 1, 7.25);
INSERT INTO settings (key, value) VALUES ('motto', '"hello"'), ('limit', '10');
INSERT INTO events (id, day, kind) VALUES (1, '2024-05-01', 'login'), (2, '2024-05-02', 'login'), (3, '2025-02-01', 'logout');

RESET session_replication_role;
SELECT setval(pg_get_serial_sequence(t, 'id'), 100) FROM unnest('{users,posts,comments,products,tags}'::text[]) t;
