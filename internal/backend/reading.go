package backend

// Reading is how a session's texts are to be read. It decides what a text means, so
// plans are not shared between sessions that read otherwise.
type Reading struct {
	StandardText bool // standard_conforming_strings: our lexer reads what PostgreSQL reads
	Foreign      bool // our lexer knows no more of the session's encoding than ASCII

	// Encoded says that a text that is not ASCII may have other bytes in PostgreSQL
	// than here. Tags of rows are made of bytes, by all sessions alike, so there only
	// ASCII gives one.
	Encoded bool
}

// NewReading takes the names of encodings as PostgreSQL writes them; "" is one that
// is not known.
func NewReading(standardText bool, client, server string) Reading {
	const utf8, none = "UTF8", "SQL_ASCII" // with none at either end nothing is converted
	return Reading{
		StandardText: standardText,
		Foreign:      client != utf8 && client != none && server != none && client != server,
		Encoded:      server != none && (server != utf8 || client != utf8 && client != none),
	}
}

// Reads reports that our lexer reads the text as PostgreSQL does. Some encodings have
// bytes of ASCII within other letters, a backslash among them.
func (r Reading) Reads(sql string) bool {
	if !r.StandardText || !r.Foreign {
		return r.StandardText
	}
	for i := range len(sql) {
		if sql[i] >= 0x80 {
			return false
		}
	}
	return true
}
