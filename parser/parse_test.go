package parser

import (
	"reflect"
	"sync"
	"testing"
)

// TestConcurrent parses from many goroutines, because the C parser keeps state
// for each thread.
func TestConcurrent(t *testing.T) {
	texts := corpus(t)
	want := make([][]*Statement, len(texts))
	for i, sql := range texts {
		want[i], _ = Parse(sql, nil)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range texts {
				i = (i*7 + g*13) % len(texts)
				got, _ := Parse(texts[i], nil)
				if !reflect.DeepEqual(got, want[i]) {
					t.Errorf("%q: not the same as when parsed alone", texts[i])
				}
			}
		})
	}
	wg.Wait()
}

// TestOperandsWithoutLiterals parses a text that was not scanned: its
// constants are no operands, and its parameters are.
func TestOperandsWithoutLiterals(t *testing.T) {
	statements, err := Parse("SELECT * FROM t WHERE a = 1 AND b = $1", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Equality{{Column: "b", Values: []Operand{{Param: 1}}}}
	if got := statements[0].Reads[0].Equal; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestForeignLiterals parses with the literals of another text, as a caller
// must not: at least no operand may name a value that is not there.
func TestForeignLiterals(t *testing.T) {
	s, _ := Scan("SELECT * FROM t WHERE a = 2 AND b = 'y'")
	statements, err := Parse("SELECT * FROM t WHERE a = 1 AND b = 'x'", s.Literals)
	if err != nil {
		t.Fatal(err)
	}
	if got := statements[0].Reads[0].Equal; got != nil {
		t.Errorf("got %+v, want none", got)
	}
}
