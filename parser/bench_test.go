package parser

import "testing"

var benchTexts = []struct{ name, text string }{
	{"short", `SELECT id, name FROM author WHERE id = $1`},
	{"hundred", `SELECT "a"."id", "a"."name" FROM "author" AS "a" WHERE "a"."id" = 42 AND "a"."kind" = 'poet' LIMIT 10`},
	{"join", `SELECT a.id, a.name, count(b.id) FROM author a LEFT JOIN book b ON b.author_id = a.id AND b.published > '2020-01-01' WHERE a.country IN ('de', 'fr', 'it') AND a.born < 1950 GROUP BY a.id, a.name ORDER BY 3 DESC LIMIT 20 /* controller='authors' */`},
	{"insert", `INSERT INTO book (id, author_id, title, price, tags) VALUES (1, 2, 'It''s', 12.50, '{a,b}'), (2, 3, E'a\nb', 9.99, NULL) ON CONFLICT (id) DO UPDATE SET title = excluded.title RETURNING id`},
}

func BenchmarkScan(b *testing.B) {
	for _, t := range benchTexts {
		b.Run(t.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(t.text)))
			for b.Loop() {
				if _, ok := Scan(t.text); !ok {
					b.Fatal("unclear")
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, t := range benchTexts {
		s, _ := Scan(t.text)
		b.Run(t.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(t.text, s.Literals); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
