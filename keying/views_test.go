package keying

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cachedpg/cachedpg/catalog"
)

// Views of the model of TestSoundness, with the rows that they have. A plan
// looks through some of them to the rows below, and must not through others.
var modelViews = []struct {
	name, columns, definition string
	sources                   []uint32
}{
	{"grown", "id int8, email text, n int4", "SELECT people.id, people.email, people.n FROM public.people WHERE (people.n > 0)", []uint32{100}},
	{"renamed", "email int8, id text", "SELECT id AS email, email AS id FROM public.people", []uint32{100}},
	{"owners", "pid int8, mail text, qid int4", "SELECT p.id AS pid, p.email AS mail, q.id AS qid FROM (public.people p JOIN public.pets q ON ((q.owner = p.id)))", []uint32{100, 200}},
	{"grown_owners", "pid int8, qid int4, n int4", "SELECT o.pid, o.qid, g.n FROM (public.owners o JOIN public.grown g ON ((g.id = o.pid)))", []uint32{300, 302}},
	{"perhaps", "id int8, qid int4", "SELECT p.id, q.id AS qid FROM (public.people p LEFT JOIN public.pets q ON ((q.owner = p.id)))", []uint32{100, 200}},
	{"counted", "id int8, pets int4", "SELECT p.id, count(q.id) AS pets FROM (public.people p LEFT JOIN public.pets q ON ((q.owner = p.id))) GROUP BY p.id", []uint32{100, 200}},
	{"first", "id int8, n int4", "SELECT people.id, people.n FROM public.people ORDER BY people.id LIMIT 1", []uint32{100}},
	{"placed", "id int8, place int4", "SELECT people.id, count(*) OVER (ORDER BY people.id) AS place FROM public.people", []uint32{100}},
	{"ahead", "id int8, n int4", "SELECT DISTINCT ON (people.n) people.id, people.n FROM public.people ORDER BY people.n, people.id", []uint32{100}},
	{"known", "id int8, email text", "SELECT DISTINCT p.id, p.email FROM (public.people p JOIN public.pets q ON ((q.owner = p.id)))", []uint32{100, 200}},
	{"total", "n int4", "SELECT count(*) AS n FROM public.people", []uint32{100}},
	{"lonely", "id int8, email text", "SELECT p.id, p.email FROM public.people p WHERE (NOT (EXISTS ( SELECT 1 FROM public.pets q WHERE (q.owner = p.id))))", []uint32{100, 200}},
	{"everyone", "id int8", "SELECT people.id FROM public.people UNION ALL SELECT pets.id FROM public.pets", []uint32{100, 200}},
}

func addModelViews(t testing.TB, c *catalog.Contents) {
	for i, v := range modelViews {
		tables(t, c, fmt.Sprintf("v %s %d | %s |", v.name, 300+i, v.columns))
		rel := c.Relations[len(c.Relations)-1]
		rel.View, rel.Sources = v.definition, v.sources
	}
}

func grown(p person) bool { return p.n > 0 }

// owns gives the pairs of people and pets for which keep holds.
func owns(w *world, keep func(person, pet) bool) []string {
	return join(w.people, w.pets, func(p person, q pet) bool { return q.owner == p.id && keep(p, q) })
}

// perhaps gives people with each of their pets, or with none.
func perhaps(w *world, keep func(p person, q pet) bool) (out []string) {
	for _, p := range w.people {
		alone := true
		for _, q := range w.pets {
			if q.owner == p.id {
				alone = false
				if keep(p, q) {
					out = append(out, fmt.Sprint(p, q))
				}
			}
		}
		if alone && keep(p, pet{}) {
			out = append(out, fmt.Sprint(p))
		}
	}
	sort.Strings(out)
	return out
}

func lowest(w *world) (id int) {
	for _, p := range w.people {
		if id == 0 || p.id < id {
			id = p.id
		}
	}
	return id
}

// either gives two people, each of them some times.
func either(times int) func(w *world, a []any) []string {
	return func(w *world, a []any) []string {
		once := rows(w.people, func(p person) bool { return p.id == a[0] || p.id == a[1] })
		return slices.Repeat(once, times)
	}
}

// outerJoin gives a person with another person and a pet, or alone.
func outerJoin(w *world, a []any) (out []string) {
	for _, p := range rows(w.people, func(p person) bool { return p.id == a[0] }) {
		out = append(out, fmt.Sprint(p, join(w.people, w.pets, func(o person, q pet) bool { return o.id == a[1] && q.id == a[2] })))
	}
	return out
}

func pets(w *world, owner int) string {
	return fmt.Sprint(len(rows(w.pets, func(q pet) bool { return q.owner == owner })))
}

// viewReads are reads of views, and of what views are made of: outer joins,
// sub-selects, groups.
var viewReads = []query{
	{"SELECT * FROM grown WHERE id = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return grown(p) && p.id == a[0] })
	}},
	{"SELECT g FROM grown g WHERE g.email = $1", "e", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return grown(p) && p.email == a[0] })
	}},
	{"SELECT email FROM renamed WHERE id = $1", "e", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.email == a[0] })
	}},
	{"SELECT id FROM renamed WHERE email = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] })
	}},
	{"SELECT * FROM grown AS g(a, id, c) WHERE g.id = $1", "e", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return grown(p) && p.email == a[0] })
	}},
	{"SELECT a.n, b.n FROM grown a JOIN grown b ON b.id = $2 WHERE a.id = $1", "ii", func(w *world, a []any) []string {
		return join(w.people, w.people, func(x, y person) bool { return grown(x) && grown(y) && x.id == a[0] && y.id == a[1] })
	}},
	{"SELECT p.n, g.n FROM people p LEFT JOIN grown g ON g.id = $2 WHERE p.id = $1", "ii", func(w *world, a []any) (out []string) {
		for _, p := range rows(w.people, func(p person) bool { return p.id == a[0] }) {
			out = append(out, fmt.Sprint(p, rows(w.people, func(g person) bool { return grown(g) && g.id == a[1] })))
		}
		return out
	}},
	{"SELECT qid FROM owners WHERE pid = $1", "i", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return p.id == a[0] })
	}},
	{"SELECT mail FROM owners WHERE pid = $1 AND qid = $2", "ii", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return p.id == a[0] && q.id == a[1] })
	}},
	{"SELECT n FROM grown_owners WHERE pid = $1 AND qid = $2", "ii", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return grown(p) && p.id == a[0] && q.id == a[1] })
	}},
	{"SELECT id FROM perhaps WHERE id = $1", "i", func(w *world, a []any) []string {
		return perhaps(w, func(p person, q pet) bool { return p.id == a[0] })
	}},
	{"SELECT id FROM perhaps WHERE qid = $1", "i", func(w *world, a []any) []string {
		return perhaps(w, func(p person, q pet) bool { return q.id == a[0] })
	}},
	{"SELECT pets FROM counted WHERE id = $1", "i", func(w *world, a []any) (out []string) {
		for _, p := range rows(w.people, func(p person) bool { return p.id == a[0] }) {
			out = append(out, p[:3]+pets(w, a[0].(int)))
		}
		return out
	}},
	{"SELECT n FROM first WHERE id = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] && p.id == lowest(w) })
	}},
	{"SELECT n FROM ahead WHERE id = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool {
			return p.id == a[0] && rows(w.people, func(o person) bool { return o.n == p.n && o.id < p.id }) == nil
		})
	}},
	{"SELECT email FROM known WHERE id = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] && pets(w, p.id) != "0" })
	}},
	{"SELECT place FROM placed WHERE id = $1", "i", func(w *world, a []any) (out []string) {
		for range rows(w.people, func(p person) bool { return p.id == a[0] }) {
			out = append(out, fmt.Sprint(len(rows(w.people, func(p person) bool { return p.id <= a[0].(int) }))))
		}
		return out
	}},
	{"SELECT t.n, p.n FROM total t, people p WHERE p.id = $1", "i", func(w *world, a []any) (out []string) {
		for _, p := range rows(w.people, func(p person) bool { return p.id == a[0] }) {
			out = append(out, fmt.Sprint(p, len(w.people)))
		}
		return out
	}},
	{"SELECT t.n, p.n FROM total t LEFT JOIN people p ON p.id = $1", "i", func(w *world, a []any) []string {
		return []string{fmt.Sprint(len(w.people), rows(w.people, func(p person) bool { return p.id == a[0] }))}
	}},
	{"SELECT * FROM lonely WHERE id = $1", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] && pets(w, p.id) == "0" })
	}},
	{"SELECT count(*) FROM everyone WHERE id = $1", "i", func(w *world, a []any) []string {
		return append(rows(w.people, func(p person) bool { return p.id == a[0] }), rows(w.pets, func(q pet) bool { return q.id == a[0] })...)
	}},
	{"SELECT p.n, q.n FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.id = $1 AND q.id = $2", "ii", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return p.id == a[0] && q.id == a[1] })
	}},
	{"SELECT p.n, q.n FROM pets q RIGHT JOIN people p ON q.owner = p.id WHERE q.id = $1", "i", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return q.id == a[0] })
	}},
	{"SELECT p.n, o.n FROM people p LEFT JOIN (people o JOIN pets q ON o.id = $2 AND q.id = $3) ON true WHERE p.id = $1", "iii", outerJoin},
	{"SELECT p.n, o.n FROM (people o JOIN pets q ON o.id = $2 AND q.id = $3) RIGHT JOIN people p ON true WHERE p.id = $1", "iii", outerJoin},
	{"SELECT p.n, q.n FROM people p FULL JOIN pets q ON q.owner = p.id WHERE p.id = $1", "i", func(w *world, a []any) []string {
		return perhaps(w, func(p person, q pet) bool { return p.id == a[0] })
	}},
	{"SELECT n, (SELECT count(*) FROM pets q WHERE q.owner = people.id) FROM people WHERE id = $1", "i", func(w *world, a []any) (out []string) {
		for _, p := range rows(w.people, func(p person) bool { return p.id == a[0] }) {
			out = append(out, p+pets(w, a[0].(int)))
		}
		return out
	}},
	{"SELECT (SELECT count(people.id)) FROM people WHERE id = $1", "i", func(w *world, a []any) []string {
		return []string{fmt.Sprint(len(rows(w.people, func(p person) bool { return p.id == a[0] })))}
	}},
	{"SELECT p.count FROM people p WHERE p.id = $1", "i", func(w *world, a []any) []string {
		return []string{fmt.Sprint(len(rows(w.people, func(p person) bool { return p.id == a[0] })))}
	}},
	{"SELECT count(*) FROM people WHERE id = $1 GROUP BY n", "i", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] })
	}},
	{"SELECT n, count(*) FROM people WHERE id = $1 GROUP BY ROLLUP (n)", "i", func(w *world, a []any) []string {
		return []string{fmt.Sprint(rows(w.people, func(p person) bool { return p.id == a[0] }))}
	}},
	{"SELECT 1 FROM people WHERE id = $1 HAVING count(*) = 0", "i", func(w *world, a []any) []string {
		if rows(w.people, func(p person) bool { return p.id == a[0] }) == nil {
			return []string{"1"}
		}
		return nil
	}},
	{"SELECT * FROM people WHERE id = $1 OR id = $2", "ii", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return p.id == a[0] || p.id == a[1] })
	}},
	{"SELECT DISTINCT n FROM people WHERE id IN ($1, $2)", "ii", either(1)},
	{"SELECT n FROM people WHERE id IN ($1, $2) LIMIT 2", "ii", either(1)},
	{"SELECT id, generate_series(1, 2) FROM people WHERE id IN ($1, $2)", "ii", either(2)},
	{"SELECT id FROM people, generate_series(1, 2) WHERE people.id IN ($1, $2)", "ii", either(2)},
	{"SELECT p.id FROM people p, (VALUES (1), (2)) v WHERE p.id IN ($1, $2)", "ii", either(2)},
	{"WITH v AS (VALUES (1), (2)) SELECT p.id FROM v, people p WHERE p.id IN ($1, $2)", "ii", either(2)},
	{"SELECT n FROM grown WHERE id = ANY($1)", "l", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return grown(p) && anyID(a[0], p.id) })
	}},
	{"SELECT qid FROM owners WHERE pid IN ($1, $2)", "ii", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return p.id == a[0] || p.id == a[1] })
	}},
	{"SELECT email FROM people WHERE email IN ($1, $2) AND n > $3", "een", func(w *world, a []any) []string {
		return rows(w.people, func(p person) bool { return (p.email == a[0] || p.email == a[1]) && p.n > a[2].(int) })
	}},
	{"WITH q AS (SELECT owner FROM pets WHERE id = $2) SELECT p.n FROM people p, q WHERE p.id = $1 AND q.owner = p.id", "ii", func(w *world, a []any) []string {
		return owns(w, func(p person, q pet) bool { return p.id == a[0] && q.id == a[1] })
	}},
}

// viewWrites write through views that PostgreSQL lets be written.
var viewWrites = []query{
	update("UPDATE grown SET n = $2 WHERE id = $1", "in", func(p person, a []any) bool { return grown(p) && p.id == a[0] },
		func(p *person, a []any) { p.n = a[1].(int) }),
	update("UPDATE renamed SET id = $2 WHERE email = $1", "ie", func(p person, a []any) bool { return p.id == a[0] },
		func(p *person, a []any) { p.email = a[1].(string) }),
	update("UPDATE people SET n = $3 WHERE id = $1 OR id = $2", "iin", func(p person, a []any) bool { return p.id == a[0] || p.id == a[1] },
		func(p *person, a []any) { p.n = a[2].(int) }),
	{"UPDATE renamed SET email = $2 WHERE email = $1", "ii", func(w *world, a []any) []string {
		w.move(func(p person) bool { return p.id == a[0] }, a[1].(int))
		return nil
	}},
	{"DELETE FROM grown WHERE email = $1", "e", func(w *world, a []any) []string {
		return w.remove(func(p person) bool { return grown(p) && p.email == a[0] })
	}},
	{"DELETE FROM lonely WHERE id = $1", "i", func(w *world, a []any) []string {
		return w.remove(func(p person) bool { return p.id == a[0] && pets(w, p.id) == "0" })
	}},
	{"INSERT INTO renamed (id, email) VALUES ($1, $2)", "ei", func(w *world, a []any) []string {
		w.people = append(w.people, person{id: a[1].(int), email: a[0].(string)})
		return nil
	}},
	{"INSERT INTO grown (id, email, n) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET n = excluded.n", "ien", func(w *world, a []any) []string {
		p := person{a[0].(int), a[1].(string), a[2].(int)}
		if i := slices.IndexFunc(w.people, func(p person) bool { return p.id == a[0] }); i >= 0 {
			w.people[i].n = p.n
		} else {
			w.people = append(w.people, p)
		}
		return nil
	}},
}

// What a plan looks through, and what it must not.
func TestViewsThatPlansLookThrough(t *testing.T) {
	snapshot := modelSchema(t)
	for sql, want := range map[string]string{
		"SELECT * FROM grown WHERE id = 1":                                              "rows public.people(id), row public.people(id)",
		"SELECT * FROM grown WHERE n = 1":                                               "values public.people(n), values public.people(n)",
		"SELECT * FROM renamed WHERE id = 'a'":                                          "rows public.people(email), row public.people(email)",
		"SELECT * FROM owners WHERE pid = 1":                                            "rows public.people(id), row public.people(id), values public.pets(owner), values public.pets(owner)",
		"SELECT * FROM grown_owners WHERE pid = 1 AND qid = 2":                          "rows public.people(id), row public.people(id), rows public.pets(id) without seen, row public.pets(id)",
		"SELECT * FROM perhaps WHERE id = 1":                                            "rows public.people(id), row public.people(id), values public.pets(owner), values public.pets(owner)",
		"SELECT * FROM counted WHERE id = 1":                                            "rows public.people(id), row public.people(id), values public.pets(owner), values public.pets(owner)",
		"SELECT * FROM first WHERE id = 1":                                              "table public.people",
		"SELECT * FROM ahead WHERE id = 1":                                              "table public.people",
		"SELECT * FROM known WHERE id = 1":                                              "rows public.people(id), row public.people(id), values public.pets(owner), values public.pets(owner)",
		"SELECT * FROM placed WHERE id = 1":                                             "table public.people",
		"SELECT * FROM total WHERE n = 1":                                               "table public.people",
		"SELECT * FROM lonely WHERE id = 1":                                             "rows public.people(id), row public.people(id), values public.pets(owner) without seen, values public.pets(owner)",
		"SELECT * FROM everyone WHERE id = 1":                                           "table public.people, table public.pets without seen",
		"SELECT * FROM grown WHERE id IN (1, 2)":                                        "rows public.people(id), row public.people(id), row public.people(id)",
		"SELECT * FROM owners WHERE pid IN (1, 2)":                                      "rows public.people(id), new public.people(id), row public.people(id), row public.people(id), values public.pets(owner), values public.pets(owner), values public.pets(owner)",
		"SELECT count(*) FROM grown WHERE id = 1":                                       "rows public.people(id), new public.people(id), row public.people(id)",
		"SELECT 1 FROM pets WHERE id = 1 AND EXISTS (SELECT 1 FROM grown WHERE id = 1)": "rows public.pets(id) without seen, row public.pets(id), rows public.people(id), new public.people(id), row public.people(id)",
	} {
		p, literals := planFor(t, snapshot, sql)
		if p.Reason != NoReason {
			t.Errorf("%s: %s %s", sql, p.Reason, p.Detail)
			continue
		}
		tags, always, _ := p.ReadTags(nil, Values{Literals: literals})
		var got []string
		for _, tag := range tags[1:always] {
			name, _, _ := strings.Cut(TagName(tag, snapshot), "#")
			got = append(got, name)
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("%s: got %s, want %s", sql, got, want)
		}
	}
}

// A definition that is not that of the columns which the view has was read
// while it changed; nothing may be concluded from its columns.
func TestViewsOfAnotherShapeAreNotLookedThrough(t *testing.T) {
	for name, spoil := range map[string]func(*catalog.Relation){
		"another name":         func(r *catalog.Relation) { r.Columns[0].Name = "key" },
		"another type":         func(r *catalog.Relation) { r.Columns[0].Type, r.Columns[0].BaseType = oidInt4, oidInt4 },
		"one more column":      func(r *catalog.Relation) { r.Columns = append(r.Columns, catalog.Column{Name: "x", Type: oidInt4}) },
		"one column less":      func(r *catalog.Relation) { r.Columns = r.Columns[:2] },
		"a column that is not": func(r *catalog.Relation) { r.View = strings.Replace(r.View, "people.id", "people.ident AS id", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			snapshot := modelSchema(t)
			spoil(snapshot.Resolve(nil, "public", "grown"))
			p, literals := planFor(t, snapshot, "SELECT n FROM grown WHERE id = 1")
			tags, always, _ := p.ReadTags(nil, Values{Literals: literals})
			if got := names(tags[:always], snapshot); !slices.Equal(got, []string{"schema", "table public.people"}) {
				t.Errorf("depends on %v, want all of the table", got)
			}
			write, literals := planFor(t, snapshot, "UPDATE grown SET n = 1 WHERE id = 1")
			if got := names(write.WriteTags(nil, Values{Literals: literals}), snapshot); !slices.Contains(got, "rows public.people(id)") {
				t.Errorf("invalidates %v, want any rows", got)
			}
		})
	}
}
