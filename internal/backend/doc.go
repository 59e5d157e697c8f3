// Package backend is a connection to PostgreSQL as the driver needs it, and what such a connection
// tells: of the session that it has, and of the server that it leads to. It knows nothing of
// what is cached, nor of connectors and pools: who asks decides what an answer means.
//
//	Conn, Pgx, Direct     what is asked of a connection
//	Session, Reading      what a result depends on outside its text, arguments and tables
//	Identity              which database on which server answers; questions that hold the check of it
//	AskIn, KeepIn, Along  questions in the caller's transaction, at no risk for that
//	CommitMode            whether a commit waits for the disk
//	Log, FlushPoint       whether what was committed is on disk
//	Tap                   whether anybody has used a connection meanwhile
//
// Texts name the schema of every function, operator, type and relation: what is on the session's
// search_path is the caller's affair.
package backend
