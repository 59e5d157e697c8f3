package parser

import "errors"

// Body is what the text of a function says, before any catalog is asked. It is
// immutable after ParseBody.
type Body struct {
	// Statements are the facts of its commands and of its expressions, which
	// are SELECTs, in the order in which they stand. All branches are among
	// them. Operands are parameters and variables of the function.
	Statements []*Statement

	// Dynamic says that it runs texts that it makes itself (EXECUTE).
	Dynamic bool

	// Ends says that it commits or rolls back: a procedure, or DO.
	Ends bool

	// Assigns are the columns of NEW that a trigger's function assigns.
	// AssignsAll says that it may be any of them, because it assigns NEW as a
	// whole or returns another row.
	Assigns    []string
	AssignsAll bool

	// ReturnsOld says that a trigger's function may return OLD, which before an UPDATE
	// leaves the row as it was.
	ReturnsOld bool
}

// maxBody bounds the texts of functions that are read.
const maxBody = 256 << 10

var (
	errLanguage = errors.New("cachedpg: a function in a language that is not read")
	errBody     = errors.New("cachedpg: a function's text that is not understood")
)

// ParseBody reads the text of a function in SQL or PL/pgSQL, as PostgreSQL's
// pg_proc has it, or of DO. An error means that it is not understood: it may do
// anything.
func ParseBody(language, source string) (*Body, error) {
	if len(source) > maxBody {
		return nil, errTooLong
	}
	switch language {
	case "sql":
		statements, err := Parse(source, nil)
		if err != nil {
			return nil, err
		}
		// What is returned replaces no row: a trigger's function is never in SQL.
		return &Body{Statements: statements}, nil
	case "plpgsql":
		return parsePLpgSQL(source)
	}
	return nil, errLanguage
}
