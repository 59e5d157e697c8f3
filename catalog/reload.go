package catalog

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Reload is Load for who has a Snapshot of before: it reads what has changed since, and takes the
// rest over from that one. Its result is the one of Load, which it is where it cannot be sure of that.
//
// What is read and taken over together is a unit: a relation with all that is a part of it, or
// what belongs to none, of which what initdb made is a unit of its own. Of what belongs to none the rest is always read.
// A relation is read again if
//
//   - a row of it in any catalog table is of a transaction which the old snapshot may not have seen:
//     one with an id that is not below the oldest that ran then. Subtransactions have ids above
//     their transaction's, and a frozen row shows the id that it was written with;
//   - a row is gone, which leaves nothing behind: the rows of each relation are counted, with the sum of
//     their OIDs. What was put in the place of another is of the first kind;
//   - it was not there.
//
// Ids are compared modulo 2^32, by age, so the old snapshot must not be older than half of that. What
// of a relation is in another row than its own, such as the name of its schema, counts for all: if it has
// changed everything is read.
//
// Some rows are written in place, without an id: what VACUUM, ANALYZE and CREATE INDEX note
// in pg_class of the table. Nothing of that is in a Snapshot.
//
// Definitions of views are made of names, and so always read, of every view.
//
// Reload takes two round trips. Outside a transaction, where a pooler must be able to keep one open,
// it leaves nothing behind; inside one it is Load.
func Reload(ctx context.Context, conn *pgx.Conn, old *Snapshot) (*Snapshot, error) {
	c := conn.PgConn()
	if old == nil || old.facts == nil || old.facts.moment == (moment{}) || c.TxStatus() != statusIdle {
		return Load(ctx, conn)
	}
	l, err := reload(ctx, c, old.facts)
	if l == nil || err != nil {
		if c.IsClosed() || ctx.Err() != nil || abandon(ctx, c, rollback) != nil {
			return nil, fmt.Errorf("cachedpg: load catalog: %w", err)
		}
		return Load(ctx, conn)
	}
	contents, err := l.contents()
	if err != nil {
		return Load(ctx, conn)
	}
	return NewSnapshot(contents), nil
}

// settleOpen is settle for a transaction of two messages.
const settleOpen = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;\n" + settings

// reload returns nothing if too much has changed, and leaves the transaction open then.
func reload(ctx context.Context, conn *pgconn.PgConn, old *facts) (*loader, error) {
	l := newLoader()
	if err := run(ctx, conn, settleOpen+unhurried(conn)+momentQuestion+memberQuestion(recentSince(old.moment.xmin)), l.row); err != nil {
		return nil, err
	}
	if l.err != nil || !l.moment.follows(old.moment) {
		return nil, l.err
	}
	changed := l.recent
	for id, m := range l.members {
		if was, ok := old.members[id]; !ok || was != m {
			changed = append(changed, id)
		}
	}
	for id := range old.units {
		if _, ok := l.members[id]; !ok && id != own && id != builtin {
			changed = append(changed, id)
		}
	}
	slices.Sort(changed)
	if changed = slices.Compact(changed); len(changed) > len(old.units)/4 {
		return nil, nil
	}
	views := slices.Clone(changed)
	for id, u := range old.units {
		if _, again := slices.BinarySearch(changed, id); id == own || again {
			continue
		}
		l.units[id] = u
		if u.relation != nil && (u.relation.Kind == 'v' || u.relation.Kind == 'm') {
			views = append(views, id)
		}
	}
	return l, run(ctx, conn, again(changed)+viewsAmong(views)+rollback, l.row)
}

// again is the statement that reads the facts of these relations, and those of none.
func again(relations []uint32) string {
	changed := " = ANY (" + oids(relations) + ")"
	return union(func(p part) string {
		switch {
		case p.of == "" && p.made == "":
			return ""
		case p.of == "":
			return " AND " + p.made
		case p.made == "":
			return " AND (" + p.of + changed + " OR " + p.of + " = 0)"
		}
		return " AND (" + p.of + changed + " OR " + p.of + " = 0 AND " + p.made + ")"
	})
}

// oids is an SQL constant.
func oids(list []uint32) string {
	b := []byte("'{")
	for i, oid := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(oid), 10)
	}
	return string(append(b, "}'::oid[]"...))
}

// moment is when facts were read.
type moment struct {
	server     string // and its start, and the database
	xmin, xmax uint64 // of the snapshot
	rest       string // what belongs to no relation and decides about all of them, counted
}

func momentOf(v [][]byte) (m moment) {
	m.server, m.rest = string(v[0]), string(v[3])
	m.xmin, _ = strconv.ParseUint(string(v[1]), 10, 64)
	m.xmax, _ = strconv.ParseUint(string(v[2]), 10, 64)
	return m
}

// follows reports that what was written between old and m shows by the ids of its rows.
func (m moment) follows(old moment) bool {
	return m.server == old.server && m.rest == old.rest && m.xmax >= old.xmax && m.xmax-old.xmin < 1<<30
}

// momentQuestion gives a moment. Started a microsecond apart, servers are told from each other by that.
var momentQuestion = `SELECT '` + kindMoment + `', concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()),
		(SELECT oid FROM pg_database WHERE datname = current_database())),
	pg_snapshot_xmin(pg_current_snapshot())::text, pg_snapshot_xmax(pg_current_snapshot())::text,
	concat_ws(' '` + func() (expressions string) {
	for _, from := range []string{
		"pg_namespace WHERE nspname NOT LIKE 'pg\\_%temp\\_%'", "pg_language", "pg_collation", "pg_opclass", "pg_am",
		"pg_proc WHERE oid < 16384", "pg_operator WHERE oid < 16384", "pg_type WHERE oid < 16384", "pg_aggregate WHERE aggfnoid::oid < 16384",
	} {
		expressions += ",\n\t\t" + count(from)
	}
	return expressions
}() + `);
`

// members are the rows of a relation that have OIDs, or something like it.
type members struct {
	rows int64
	oids int64
}

func (l *loader) member(v [][]byte) {
	id := l.oid(v[0])
	if m := (members{l.int64(v[1]), l.int64(v[2])}); m.rows > 0 { // an index has none, but columns
		l.members[id] = m
	}
	if l.bool(v[3]) {
		l.recent = append(l.recent, id)
	}
}

// notRecent is for who has no snapshot to compare with.
const notRecent = "false"

// recentSince is true for a row that a snapshot with this xmin may not have seen.
func recentSince(xmin uint64) string {
	return "age(xmin) <= age('" + strconv.FormatUint(xmin&(1<<32-1), 10) + "'::xid)"
}

// memberQuestion counts the rows of all relations, and tells which have recent ones.
func memberQuestion(recent string) string {
	var b strings.Builder
	for _, table := range [][3]string{
		{"oid", "oid", "pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'c', 'S')"},
		{"indrelid", "indexrelid", "pg_index"}, {"conrelid", "oid", "pg_constraint WHERE conrelid <> 0"}, {"tgrelid", "oid", "pg_trigger"},
		{"ev_class", "oid", "pg_rewrite"}, {"polrelid", "oid", "pg_policy"}, {"adrelid", "oid", "pg_attrdef"},
		{"inhrelid", "inhparent", "pg_inherits"}, {"partrelid", "partrelid", "pg_partitioned_table"},
	} {
		b.WriteString("SELECT " + table[0] + " AS relation, " + table[1] + "::int8 AS member, " + recent + " AS recent FROM " + table[2] + "\n\tUNION ALL ")
	}
	// These go with the relation, and change one by one.
	return `SELECT '` + kindMember + `', relation::text, count(member)::text, coalesce(sum(member), 0)::text, bool_or(recent)::text FROM (
	` + b.String() + `SELECT attrelid, NULL, true FROM pg_attribute WHERE attnum > 0 AND ` + recent + `
	UNION ALL SELECT ` + rowType + `, NULL, true FROM pg_type t LEFT JOIN pg_type e ON ` + arrayOf + ` WHERE ` + strings.ReplaceAll(recent, "xmin)", "t.xmin)") + `
	) w WHERE relation <> 0 GROUP BY relation;
`
}
