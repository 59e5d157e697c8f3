package parser

import "errors"

const (
	// maxText is the longest text that is parsed, in bytes.
	maxText = 1 << 20

	// maxNesting bounds the depth of the parse tree, in units of one operator
	// inside another.
	//
	// The C parser keeps its own stack on the heap, but turning its tree into
	// a message is recursive and has no check: too deep a tree is a crash that
	// no recover can catch. One unit took up to 400 bytes when measured, so
	// this fits the 128 KiB that musl gives a thread.
	maxNesting = 200

	maxParam = 65535 // the protocol's limit
)

var (
	errTooLong   = errors.New("cachedpg: text too long to parse")
	errNotText   = errors.New("cachedpg: text is not UTF-8 or has a NUL byte")
	errTooDeep   = errors.New("cachedpg: text nests too deeply to parse")
	errNotTokens = errors.New("cachedpg: text cannot be cut into tokens")
)

// nesting is what is open around a token.
type nesting struct {
	close byte // the bracket that ends it, or 'e' for CASE, 0 for the text itself
	below int  // the units outside of it

	// query is what a query takes by itself, once for all of its set operations.
	query int

	// chain counts joins and set operations, which nest to the left over
	// everything else at their level.
	chain int

	// operators counts what nests inside one operand of AND, OR or a list.
	operators int

	between bool // the next AND belongs to BETWEEN
}

// checkNesting gives an error if the parse tree of the text may be deeper than
// maxNesting. It counts tokens, and so never less than the tree has.
func checkNesting(sql string) error {
	l := lexer{sql: sql}
	stack := []nesting{{}}
	dot := false // the last token was a dot: a keyword behind it is a name
	for {
		top := &stack[len(stack)-1]
		open, weight := byte(0), 0
		switch l.next() {
		case tokenEnd:
			return nil
		case tokenBad:
			return errNotTokens
		case tokenOp:
			top.operators++
		case tokenMark:
			switch s := sql[l.start:l.pos]; s {
			case "(":
				open, weight = ')', 2
			case "[":
				open, weight = ']', 2
			case ")", "]":
				if len(stack) > 1 && top.close == s[0] {
					stack = stack[:len(stack)-1]
				}
			case ",":
				top.operators, top.between = 0, false
			case ";":
				if len(stack) == 1 {
					*top = nesting{}
				}
			case "::":
				top.operators++
			}
		case tokenWord:
			if dot {
				break
			}
			switch keyword(sql[l.start:l.pos]) {
			case "and":
				if top.between {
					top.between = false
				} else {
					top.operators = 0
				}
			case "or":
				top.operators = 0
			case "between":
				top.operators++
				top.between = true
			case "case":
				open, weight = 'e', 3
			case "end":
				if top.close == 'e' {
					stack = stack[:len(stack)-1]
				}
			case "when", "then", "else":
				if top.close == 'e' {
					top.operators, top.between = 0, false
				}
			case "union", "intersect", "except", "join":
				top.chain++
			case "select", "insert", "update", "delete", "merge", "values", "table":
				top.query = max(top.query, 2)
			case "with":
				top.query = max(top.query, 4)
			case "not", "is", "isnull", "notnull", "like", "ilike", "similar", "in", "collate",
				"at", "operator", "over", "by", "overlaps", "any", "all", "some", "array", "row",
				"exists", "filter", "within", "escape":
				top.operators++
			}
		}
		dot = l.kind == tokenMark && sql[l.start] == '.'
		top = &stack[len(stack)-1]
		if depth := top.below + top.query + top.chain + top.operators; depth+weight > maxNesting {
			return errTooDeep
		} else if open != 0 {
			stack = append(stack, nesting{close: open, below: depth + weight})
		}
	}
}

// keyword is a word in lower case, or "" for one too long to matter.
func keyword(word string) string {
	var buf [9]byte
	if len(word) > len(buf) {
		return ""
	}
	for i := range len(word) {
		c := word[i]
		if chars[c]&charLetter != 0 {
			c |= 0x20
		}
		buf[i] = c
	}
	return string(buf[:len(word)])
}
