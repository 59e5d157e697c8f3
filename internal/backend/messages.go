package backend

import "github.com/jackc/pgx/v5/pgproto3"

// isAnswer tells an answer from what PostgreSQL may send at any time, and from what pgx waits for.
func isAnswer(kind byte) bool {
	switch kind {
	case 'A', 'N', 'S', 'Z': // NotificationResponse, NoticeResponse, ParameterStatus, ReadyForQuery
		return false
	}
	return true
}

// message is what is sent for some messages.
func message(messages ...pgproto3.FrontendMessage) (b []byte) {
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err) // they are constants
		}
	}
	return b
}
