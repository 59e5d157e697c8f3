package sqlgen

import (
	"fmt"
	"time"
)

// Type is a type of columns with the few values that occur in them.
type Type struct {
	SQL    string
	Values []Value // in PostgreSQL's order as far as partition bounds need it
	Family Family
}

// Family groups types whose columns may be compared with each other.
type Family byte

// The families.
const (
	Number Family = iota
	Text
	Other
)

// Value is one value in the spellings that a program may use for it.
type Value struct {
	Literals []string // SQL; the first is the plain one
	Args     []any    // Go; the first is the usual one
}

// domain is how many values a type has. The rows that a schema begins with use
// the first of them.
const (
	domain = 12
	begin  = 6
)

func values(value func(n int) Value) (all []Value) {
	for n := range domain {
		all = append(all, value(n))
	}
	return all
}

func integers(sql string) *Type {
	return &Type{SQL: sql, Family: Number, Values: values(func(n int) Value {
		return Value{
			Literals: []string{fmt.Sprint(n), fmt.Sprintf("'%d'", n), fmt.Sprintf("%d::%s", n, sql), fmt.Sprintf("' %d '::%s", n, sql)},
			Args:     []any{int64(n), int32(n), n},
		}
	})}
}

// words are a to h, then two that only some equalities tell from those, and two
// that spellings get wrong.
var words = [domain]string{"a", "b", "c", "d", "e", "f", "g", "h", "A", "", "a ", `o'b\n$1`}

func quote(s string) string {
	q := ""
	for _, r := range s {
		if r == '\'' {
			q += "'"
		}
		q += string(r)
	}
	return "'" + q + "'"
}

func textual(sql string) *Type {
	return &Type{SQL: sql, Family: Text, Values: values(func(n int) Value {
		s := words[n]
		return Value{Literals: []string{quote(s), "$q$" + s + "$q$", quote(s) + "::" + sql}, Args: []any{s}}
	})}
}

func plain(sql string, literal func(n int) []string, args func(n int) []any) *Type {
	return &Type{SQL: sql, Family: Other, Values: values(func(n int) Value { return Value{Literals: literal(n), Args: args(n)} })}
}

// day is a day of March 2024, in whose last night Oslo changes its clocks.
func day(n int) time.Time { return time.Date(2024, 3, 25+n, 0, 0, 0, 0, time.UTC) }

var (
	integer   = integers("int")
	bigint    = integers("bigint")
	smallint  = integers("smallint")
	text      = textual("text")
	varchar   = textual("varchar(20)")
	character = textual("char(8)")

	numeric = plain("numeric(8,2)", func(n int) []string {
		return []string{fmt.Sprintf("%d.50", n), fmt.Sprintf("%d.5", n), fmt.Sprintf("'%d.500'", n)}
	}, func(n int) []any { return []any{fmt.Sprintf("%d.5", n), float64(n) + 0.5} })

	uuid = plain("uuid", func(n int) []string {
		return []string{fmt.Sprintf("'00000000-0000-4000-8000-00000000000%x'", n), fmt.Sprintf("'{00000000-0000-4000-8000-00000000000%X}'", n),
			fmt.Sprintf("'0000000000004000800000000000000%X'::uuid", n)}
	}, func(n int) []any {
		return []any{fmt.Sprintf("00000000-0000-4000-8000-00000000000%x", n), [16]byte{6: 0x40, 8: 0x80, 15: byte(n)}}
	})

	boolean = plain("boolean", func(n int) []string {
		return [][]string{{"false", "'f'", "'no'"}, {"true", "'t'", "'on'::boolean"}}[n%2]
	}, func(n int) []any { return []any{n%2 == 1} })

	date = plain("date", func(n int) []string {
		d := day(n)
		return []string{d.Format("'2006-01-02'"), d.Format("'20060102'"), d.Format("date '2006-01-02'"), d.Format("'January 2, 2006'")}
	}, func(n int) []any { return []any{day(n), day(n).Format("2006-01-02")} })

	timestamptz = plain("timestamptz", func(n int) []string {
		d := day(n)
		return []string{d.Format("'2006-01-02 00:00:00+00'"), d.Add(2 * time.Hour).Format("'2006-01-02T15:04:05+02:00'"),
			d.Format("timestamptz '2006-01-02 00:00Z'")}
	}, func(n int) []any { return []any{day(n), day(n).In(time.FixedZone("east", 7200))} })

	jsonb = plain("jsonb", func(n int) []string {
		return []string{fmt.Sprintf(`'{"k": %d, "tags": ["a", "%s"]}'`, n, words[n%8]), fmt.Sprintf(`'{"tags": ["a", "%s"], "k": %d}'::jsonb`, words[n%8], n)}
	}, func(n int) []any { return []any{fmt.Sprintf(`{"k": %d, "tags": ["a", "%s"]}`, n, words[n%8])} })

	integerArray = plain("int[]", func(n int) []string {
		return []string{fmt.Sprintf("'{%d,%d}'", n, n%3), fmt.Sprintf("ARRAY[%d,%d]", n, n%3)}
	}, func(n int) []any { return []any{[]int32{int32(n), int32(n % 3)}, []int64{int64(n), int64(n % 3)}} })

	textArray = plain("text[]", func(n int) []string {
		return []string{fmt.Sprintf("'{%s,%s}'", words[n%8], words[n%3]), fmt.Sprintf("ARRAY['%s','%s']", words[n%8], words[n%3])}
	}, func(n int) []any { return []any{[]string{words[n%8], words[n%3]}} })

	bytea = plain("bytea", func(n int) []string {
		return []string{fmt.Sprintf(`'\x%02x'`, n), fmt.Sprintf(`E'\\%03o'`, n)}
	}, func(n int) []any { return []any{[]byte{byte(n)}} })

	moods = []string{"sad", "ok", "happy"}
	mood  = plain("mood", func(n int) []string {
		return []string{quote(moods[n%3]), quote(moods[n%3]) + "::mood"}
	}, func(n int) []any { return []any{moods[n%3]} })

	// A domain over int. Most of its values pass its check.
	small = &Type{SQL: "small", Family: Number, Values: values(func(n int) Value {
		return Value{Literals: []string{fmt.Sprint(n), fmt.Sprintf("%d::small", n)}, Args: []any{int64(n)}}
	})}
)

// keyTypes are those of primary keys, the usual ones more often.
var keyTypes = []*Type{integer, integer, integer, bigint, bigint, uuid, uuid, text, varchar, smallint, date, small, character, numeric, timestamptz, bytea}

// otherTypes are those of columns without a role.
var otherTypes = []*Type{integer, integer, bigint, text, text, varchar, numeric, boolean, date, timestamptz, jsonb, integerArray, textArray, mood, small, bytea, character, uuid}

// typeDDL makes what columns need.
var typeDDL = []string{
	"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
	"CREATE DOMAIN small AS int CHECK (VALUE < 11)",
	// For defaults: numbers without gaps.
	`CREATE FUNCTION next_number() RETURNS int LANGUAGE plpgsql AS $$
		DECLARE got int;
		BEGIN UPDATE stat SET n = n + 1 WHERE tab = 'b'; SELECT max(n) INTO got FROM stat WHERE tab = 'b'; RETURN got; END $$`,
}
