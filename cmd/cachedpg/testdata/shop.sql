-- The schema of the statements in explain.txt.
CREATE TABLE customers (
	id int PRIMARY KEY, email text NOT NULL UNIQUE, name text NOT NULL,
	updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.updated_at := now();
	RETURN NEW;
END $$;
CREATE TRIGGER touch BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION touch();

CREATE TABLE orders (
	id bigint PRIMARY KEY, customer_id int NOT NULL REFERENCES customers ON DELETE CASCADE,
	total numeric NOT NULL, placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON orders (customer_id);
CREATE VIEW spending AS
	SELECT c.id, c.name, sum(o.total) AS total FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.id;

CREATE FUNCTION discount(numeric) RETURNS numeric LANGUAGE sql STABLE AS 'SELECT $1 * 0.9';

CREATE TABLE messages (id int PRIMARY KEY, customer_id int NOT NULL, body text);
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;

CREATE TABLE events (id int PRIMARY KEY, kind text NOT NULL);
CREATE TABLE audit_events (at timestamptz, row text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO audit_%I VALUES (now(), $1)', TG_TABLE_NAME) USING NEW::text;
	RETURN NEW;
END $$;
CREATE TRIGGER audit AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION audit();
