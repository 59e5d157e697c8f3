package parser

// AppendReturning gives the text of one INSERT, UPDATE, DELETE or MERGE with list behind its
// own RETURNING list or, where it has none of its own, with RETURNING list. It comes behind the last
// token, so every position in the text stays what it was, and no comment hides it. It answers
// false for a text that it does not understand in every detail.
func AppendReturning(sql, list string, own bool) (string, bool) {
	l := lexer{sql: sql}
	last, ended := 0, false
	for {
		switch kind := l.next(); {
		case kind == tokenEnd:
			if last == 0 || l.doubtful {
				return "", false
			}
			word := " RETURNING "
			if own {
				word = ", "
			}
			return sql[:last] + word + list + sql[last:], true
		case kind == tokenBad:
			return "", false
		case kind == tokenMark && sql[l.start] == ';':
			ended = true
		case ended: // a second statement
			return "", false
		default:
			last = l.pos
		}
	}
}
