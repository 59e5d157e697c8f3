package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The rows. All are there at the beginning; mortal ones are deleted and
// inserted again. They are so many that commits which wait leave some alone.
const (
	rowCount = 18
	mortal   = 3 // the first of them
	groups   = 3
)

// first is the value that every row has at the beginning.
const first = "first"

const tables = `
	CREATE TABLE kind (grp int PRIMARY KEY, name text NOT NULL);
	INSERT INTO kind SELECT g, 'kind ' || g FROM generate_series(0, 2) g;
	CREATE TABLE item (id int PRIMARY KEY, grp int NOT NULL REFERENCES kind, v text NOT NULL);
	CREATE INDEX ON item (grp);
	INSERT INTO item SELECT i, i % 3, 'first' FROM generate_series(0, 17) i;
	CREATE VIEW listed AS SELECT id, v FROM item;
	CREATE TABLE shape (id int PRIMARY KEY, first int);
	INSERT INTO shape VALUES (1, 1);`

// query is a read. It tells the values of all its rows: those that are not
// found are absent.
type query struct {
	text string
	args []any
	rows []int
	scan func(*sql.Rows, values) error
}

func group(g int) (rows []int) {
	for id := range rowCount {
		if id%groups == g {
			rows = append(rows, id)
		}
	}
	return rows
}

func allRows() (rows []int) {
	for id := range rowCount {
		rows = append(rows, id)
	}
	return rows
}

// queries are all reads that a process makes.
var queries = func() (all []query) {
	for id := range rowCount {
		one, three := []int{id}, []int{id, (id + 1) % rowCount, (id + 5) % rowCount}
		all = append(all,
			query{"SELECT id, v FROM item WHERE id = $1", []any{id}, one, pairs},
			query{fmt.Sprintf("SELECT id, v FROM item WHERE id = %d", id), nil, one, pairs},
			query{"SELECT v FROM listed WHERE id = $1", []any{id}, one, alone(id)},
			query{"SELECT id, v FROM item WHERE id IN ($1, $2, $3)", []any{three[0], three[1], three[2]}, three, pairs},
		)
		if id%2 == 0 {
			all = append(all, query{"SELECT id, v FROM item WHERE id = ANY($1)", []any{three}, three, pairs})
		}
	}
	for g := range groups {
		all = append(all,
			query{"SELECT id, v FROM item WHERE grp = $1", []any{g}, group(g), pairs},
			query{"SELECT i.id, i.v FROM item i JOIN kind k USING (grp) WHERE k.name = $1", []any{fmt.Sprint("kind ", g)}, group(g), pairs},
		)
	}
	return append(all,
		query{"SELECT id, v FROM item ORDER BY id", nil, allRows(), pairs},
		query{"SELECT string_agg(id::text || '=' || v, ' ' ORDER BY id) FROM item", nil, allRows(), list},
		query{"SELECT * FROM shape WHERE id = 1", nil, []int{shape}, columns},
	)
}()

// pick takes a query at random, mostly one by key.
func pick(rng *rand.Rand) query {
	if rng.IntN(3) > 0 {
		id := rng.IntN(rowCount)
		byKey := slices.IndexFunc(queries, func(q query) bool { return q.rows[0] == id })
		return queries[byKey+rng.IntN(4)]
	}
	return queries[rng.IntN(len(queries))]
}

// someRow takes a row to write: low ones often, high ones seldom.
func someRow(rng *rand.Rand) int { return min(rng.IntN(rowCount), rng.IntN(rowCount)) }

// asker is what reads and writes: a DB or a transaction.
type asker interface {
	QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error)
}

// ask runs the query.
func (q query) ask(ctx context.Context, on asker) (values, error) {
	rows, err := on.QueryContext(ctx, q.text, q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(values, len(q.rows))
	for _, id := range q.rows {
		found[id] = ""
	}
	for rows.Next() {
		if err := q.scan(rows, found); err != nil {
			return nil, err
		}
	}
	return found, rows.Err()
}

func pairs(rows *sql.Rows, found values) error {
	var id int
	var v string
	err := rows.Scan(&id, &v)
	found[id] = v
	return err
}

func alone(id int) func(*sql.Rows, values) error {
	return func(rows *sql.Rows, found values) error {
		var v string
		err := rows.Scan(&v)
		found[id] = v
		return err
	}
}

func list(rows *sql.Rows, found values) error {
	var all sql.NullString
	if err := rows.Scan(&all); err != nil {
		return err
	}
	for _, item := range strings.Fields(all.String) {
		var id int
		text, v, _ := strings.Cut(item, "=")
		if _, err := fmt.Sscan(text, &id); err != nil {
			return err
		}
		found[id] = v
	}
	return nil
}

// columns takes the name of the second column for the value.
func columns(rows *sql.Rows, found values) error {
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	if len(names) != 2 {
		return fmt.Errorf("%d columns in shape", len(names))
	}
	found[shape] = names[1]
	return nil
}
