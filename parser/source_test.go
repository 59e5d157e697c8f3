package parser

import (
	"fmt"
	"strings"
	"testing"
)

// conversions writes what is known of the casts of a text, one after the other.
func conversions(t testing.TB, sql string) string {
	t.Helper()
	statements, err := Parse(sql, nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var list []string
	for _, c := range statements[0].Casts {
		list = append(list, c.Type.Name+" of "+sourceList(c.From))
	}
	return strings.Join(list, "; ")
}

func sourceList(from []Source) string {
	var list []string
	for _, s := range from {
		switch s.Kind {
		case FromColumn:
			text := s.Name.Name + " in"
			for _, r := range s.Relations {
				text += " " + r.Name
			}
			if len(s.From) > 0 {
				text += ", else " + sourceList(s.From)
			}
			list = append(list, text)
		case FromCall:
			list = append(list, fmt.Sprintf("%s(%s)", s.Name.Name, sourceList(s.From)))
		case FromOperand:
			list = append(list, "operator "+s.Name.Name)
		case FromCast:
			list = append(list, "cast to "+s.Name.Name)
		case FromText:
			list = append(list, "constant as "+s.Name.Name)
		default:
			list = append(list, "elsewhere")
		}
	}
	return strings.Join(list, " + ")
}

func TestWhereCastsGetTheirValues(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT $1::date, '2024-01-01'::date, true::text":                                      "",
		"SELECT a::date FROM t":                                                                "date of a in t, else elsewhere",
		"SELECT t.a::date FROM s.t":                                                            "date of a in t, else elsewhere",
		"SELECT x.a::date FROM t":                                                              "a of elsewhere; date of elsewhere",
		"SELECT (a)::date FROM t, u":                                                           "date of a in t u, else elsewhere",
		"SELECT (SELECT a::date FROM t) FROM u":                                                "date of a in t, else a in u, else elsewhere",
		"SELECT a::date FROM t AS x(a)":                                                        "date of elsewhere",
		"SELECT d::date FROM (SELECT a AS d FROM t) x":                                         "date of a in t, else elsewhere",
		"SELECT d::date FROM (SELECT * FROM t) x":                                              "date of d in t, else elsewhere",
		"SELECT d::date FROM (SELECT a, * FROM t) x":                                           "date of d in t, else elsewhere",
		"SELECT d::date FROM (SELECT a, b FROM t) x(c, d)":                                     "date of b in t, else elsewhere",
		"SELECT d::date FROM (SELECT *, b FROM t) x(c, d)":                                     "date of elsewhere",
		"WITH x AS (SELECT a d FROM t) SELECT d::date FROM x":                                  "date of a in t, else elsewhere",
		"WITH x(d) AS (SELECT a FROM t) SELECT x.d::date FROM x":                               "date of a in t, else elsewhere",
		"SELECT d::date FROM (SELECT a d FROM t UNION SELECT b FROM u) x":                      "date of a in t, else elsewhere",
		"SELECT d::date FROM (SELECT '' d UNION SELECT b FROM u) x":                            "date of b in u, else elsewhere",
		"SELECT d::date FROM (SELECT '' d UNION SELECT * FROM u) x":                            "date of elsewhere",
		"SELECT d::date FROM (VALUES (1), (f())) x(d)":                                         "date of f()",
		"SELECT d::date FROM f(1) d":                                                           "date of f()",
		"SELECT d.x::date FROM f(1) d":                                                         "x of elsewhere; date of elsewhere",
		"SELECT a::date FROM t, f(1) d":                                                        "date of a in t, else elsewhere",
		"SELECT (SELECT a::date FROM f(1) d) FROM t":                                           "date of elsewhere",
		"SELECT a::date FROM t JOIN (SELECT b a FROM u) x USING (a)":                           "date of b in u, else elsewhere + a in t",
		"SELECT date(a), (a).b, t.c FROM t":                                                    "date of a in t, else elsewhere; b of a in t, else elsewhere",
		"SELECT a AT TIME ZONE 'UTC' FROM t":                                                   "timezone of a in t, else elsewhere",
		"SELECT (a + b)::date, coalesce(a, $1)::date FROM t":                                   "date of a in t, else elsewhere + b in t, else elsewhere + operator +; date of a in t, else elsewhere",
		"SELECT $1::text::date, $1::varchar(3)::date, a::int::date FROM t":                     "date of constant as text; date of cast to varchar; int4 of a in t, else elsewhere; date of cast to int4",
		"SELECT (CASE WHEN a THEN b ELSE c END)::date FROM t":                                  "date of b in t, else elsewhere + c in t, else elsewhere",
		"SELECT (SELECT a FROM t)::date, ARRAY(SELECT a FROM t)::date[]":                       "date of a in t, else elsewhere; date of a in t, else elsewhere",
		"SELECT ARRAY[a, b]::date[], ROW(a)::t FROM t":                                         "date of a in t, else elsewhere + b in t, else elsewhere; t of a in t, else elsewhere",
		"SELECT a[1]::date, (a[1]).b::date FROM t":                                             "date of a in t, else elsewhere; b of a in t, else elsewhere; date of elsewhere",
		"WITH RECURSIVE x AS (SELECT a FROM t UNION SELECT f(a) FROM x) SELECT a::date FROM x": "f of a in t, else elsewhere; date of a in t, else elsewhere",
		"SELECT d::date FROM t, LATERAL (SELECT t.a AS d) x":                                   "date of a in t, else elsewhere + d in t",
	} {
		if got := conversions(t, sql); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", sql, got, want)
		}
	}
}

// With a collation or an operator class of its own, a conflict is one of other values.
func TestConflictColumns(t *testing.T) {
	for conflict, want := range map[string]int{
		"(a)": 1, "(a, b)": 2, "(a COLLATE x)": 0, "(a my_ops)": 0, "(a, b my_ops)": 0, "(lower(a))": 0, "(a) WHERE b > 1": 0, "ON CONSTRAINT c": 0,
	} {
		sql := "INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT " + conflict + " DO UPDATE SET b = 3"
		statements, err := Parse(sql, nil)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if got := len(statements[0].Writes[0].ConflictColumns); got != want {
			t.Errorf("%s: got %d columns, want %d", sql, got, want)
		}
	}
}
