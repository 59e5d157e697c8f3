package cachedpg

// reading is how a session's texts are to be read. It decides what a text means, so
// plans are not shared between sessions that read otherwise.
type reading struct {
	standardText bool // standard_conforming_strings: our lexer reads what PostgreSQL reads
	foreign      bool // our lexer knows no more of the session's encoding than ASCII

	// encoded says that a text that is not ASCII may have other bytes in PostgreSQL
	// than here. Tags of rows are made of bytes, by all sessions alike, so there only
	// ASCII gives one.
	encoded bool
}

// newReading takes the names of encodings as PostgreSQL writes them; "" is one that
// is not known.
func newReading(standardText bool, client, server string) reading {
	const utf8, none = "UTF8", "SQL_ASCII" // with none at either end nothing is converted
	return reading{
		standardText: standardText,
		foreign:      client != utf8 && client != none && server != none && client != server,
		encoded:      server != none && (server != utf8 || client != utf8 && client != none),
	}
}

// reads reports that our lexer reads the text as PostgreSQL does. Some encodings have
// bytes of ASCII within other letters, a backslash among them.
func (r reading) reads(sql string) bool {
	if !r.standardText || !r.foreign {
		return r.standardText
	}
	for i := range len(sql) {
		if sql[i] >= 0x80 {
			return false
		}
	}
	return true
}
