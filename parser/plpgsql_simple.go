package parser

// simple reads a statement that ends with its semicolon.
func (r *plReader) simple() {
	first := r.at
	if r.target() {
		return
	}
	r.at = first
	if r.accept("null") {
		r.expect(";")
		return
	}
	tokens := r.until(";")
	r.expect(";")
	if r.failed || len(tokens) == 0 {
		r.fail()
		return
	}
	rest := tokens[1:]
	switch tokens[0].word {
	case "execute":
		r.body.Dynamic = true
		r.assigned(tokens)
	case "perform":
		r.expr(rest)
	case "return":
		r.returns(rest)
	case "raise":
		r.raise(rest)
	case "assert":
		r.expr(rest)
	case "exit", "continue":
		if i := indexOutside(rest, "when"); i >= 0 {
			r.expr(rest[i+1:])
		}
	case "commit", "rollback":
		r.body.Ends = true
	case "open":
		r.open(rest)
	case "get", "fetch", "move", "close":
		if indexOutside(rest, "(", "[") >= 0 {
			r.fail() // a count by an expression
		}
		r.assigned(rest)
	default:
		r.command(tokens)
	}
}

// target reads an assignment: a variable, with fields and subscripts, := or =,
// and an expression. It answers false if the statement is none.
func (r *plReader) target() bool {
	begin := r.at
	if k := r.tokens[r.at].kind; k != tokenWord && k != tokenQuoted {
		return false
	}
	r.at++
	var subscripts [][]plToken
	for r.at < len(r.tokens) {
		switch {
		case r.is(":=", "="):
			r.assigned(r.tokens[begin:r.at])
			r.at++
			r.expr(r.until(";"))
			r.expect(";")
			for _, s := range subscripts {
				r.subscript(s)
			}
			return true
		case r.accept("."):
			r.name()
		case r.accept("["):
			subscripts = append(subscripts, r.until("]"))
			r.expect("]")
		default:
			return false
		}
	}
	return false
}

// subscript reads [i] or [i:j].
func (r *plReader) subscript(tokens []plToken) {
	if i := indexOutside(tokens, ":"); i >= 0 {
		if i > 0 {
			r.expr(tokens[:i])
		}
		if tokens = tokens[i+1:]; len(tokens) == 0 {
			return
		}
	}
	r.expr(tokens)
}

func (r *plReader) returns(tokens []plToken) {
	switch {
	case len(tokens) == 0:
	case len(tokens) == 1 && (tokens[0].word == "new" || tokens[0].word == "null"):
	case len(tokens) == 1 && tokens[0].word == "old":
		r.body.ReturnsOld = true
	case tokens[0].word == "next" && len(tokens) > 1:
		r.expr(tokens[1:])
	case tokens[0].word == "next": // the OUT parameters
	case tokens[0].word == "query":
		r.query(tokens[1:])
	default:
		r.body.AssignsAll = true
		r.expr(tokens)
	}
}

// raise reads RAISE [level] ['format' [, expression …]] [USING option = expression, …].
func (r *plReader) raise(tokens []plToken) {
	using := indexOutside(tokens, "using")
	head := tokens
	if using >= 0 {
		head = tokens[:using]
		options := tokens[using+1:]
		for len(options) > 0 {
			one := options
			if i := indexOutside(options, ","); i >= 0 {
				one, options = options[:i], options[i+1:]
			} else {
				options = nil
			}
			if len(one) < 3 || one[1].word != "=" && one[1].word != ":=" {
				r.fail()
				return
			}
			r.expr(one[2:])
		}
	}
	if i := indexOutside(head, ","); i >= 0 {
		r.expr(head[i+1:])
	}
}

// open reads OPEN cursor behind its first word.
func (r *plReader) open(tokens []plToken) {
	if i := indexOutside(tokens, "for"); i >= 0 {
		r.query(tokens[i+1:])
		return
	}
	if len(tokens) > 3 && tokens[1].word == "(" && tokens[len(tokens)-1].word == ")" {
		r.arguments(tokens[2 : len(tokens)-1])
	} else if len(tokens) != 1 {
		r.fail()
	}
}

// command reads an SQL command. Its INTO, which names variables, is taken out:
// INTO [STRICT] a, b.c
func (r *plReader) command(tokens []plToken) {
	text, rest := "", tokens
	for i, t := range tokens {
		if t.word != "into" || i > 0 && (tokens[i-1].word == "insert" || tokens[i-1].word == "merge") {
			continue
		}
		if len(rest) != len(tokens) {
			r.fail() // a second one
			return
		}
		end := i + 1
		if end < len(tokens) && tokens[end].word == "strict" {
			end++
		}
		begin := end
		for name := true; end < len(tokens); end++ {
			k, w := tokens[end].kind, tokens[end].word
			if name && k != tokenWord && k != tokenQuoted {
				r.fail()
				return
			}
			if !name && w != "." && w != "," {
				break
			}
			name = !name
		}
		r.assigned(tokens[begin:end])
		text, rest = r.text(tokens[:i])+" ", tokens[end:]
	}
	if tokens[0].word == "call" {
		r.assigned(tokens) // an INOUT argument
	}
	r.sql(text + r.text(rest))
}
