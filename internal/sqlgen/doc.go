// Package sqlgen makes random schemas, and random SELECTs and writes over them,
// for tests that let PostgreSQL judge the driver.
//
// A test takes a Gen with a seed that it prints, a Schema from it, and then as
// many statements as it has time for:
//
//	g := sqlgen.New(seed)
//	schema := g.Schema()      // schema.DDL, run in order in an empty database
//	read := schema.Query(g)   // a SELECT, the same for the same snapshot
//	write := schema.Write(g)  // anything else
//
// The same seed gives the same schema and the same statements. A Schema does
// not change once it is made, so goroutines may share one, each with a Gen of
// its own.
//
// Three things make the statements worth running. Values come from small
// domains, in several spellings and Go types, so that rows collide, keys are
// found and constraints are violated. Schemas are full of what a write may lead
// to: foreign keys with every action, triggers, rules, partitions, inheritance,
// functions that write. And a SELECT has one right answer: whatever depends on
// the order of rows, the clock or the session is left out, or told apart by
// Statement.Ordered.
//
// Most statements succeed; some fail, as those of applications do. Everything
// is accepted by the grammar of PostgreSQL 16 and, but for MERGE, of 14.
package sqlgen
