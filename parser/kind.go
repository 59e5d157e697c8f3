package parser

import "fmt"

var kindNames = [...]string{
	Opaque:             "opaque",
	Select:             "select",
	Insert:             "insert",
	Update:             "update",
	Delete:             "delete",
	Merge:              "merge",
	Truncate:           "truncate",
	CopyFrom:           "copy from",
	CopyTo:             "copy to",
	Refresh:            "refresh",
	DDL:                "ddl",
	Begin:              "begin",
	Commit:             "commit",
	Rollback:           "rollback",
	Savepoint:          "savepoint",
	RollbackTo:         "rollback to",
	ReleaseSavepoint:   "release savepoint",
	PrepareTransaction: "prepare transaction",
	CommitPrepared:     "commit prepared",
	RollbackPrepared:   "rollback prepared",
	SetTransaction:     "set transaction",
	Set:                "set",
	Discard:            "discard",
	PrepareStatement:   "prepare",
	Execute:            "execute",
	Deallocate:         "deallocate",
	Explain:            "explain",
	Cursor:             "cursor",
	Notify:             "notify",
	Lock:               "lock",
	Do:                 "do",
	Call:               "call",
	Show:               "show",
	Remark:             "remark",
	Maintenance:        "maintenance",
	Empty:              "empty",
}

// String gives the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", k)
}

var opNames = [...]string{
	OpInsert:   "insert",
	OpUpsert:   "upsert",
	OpUpdate:   "update",
	OpDelete:   "delete",
	OpMerge:    "merge",
	OpTruncate: "truncate",
	OpCopy:     "copy",
	OpRefresh:  "refresh",
}

// String gives the operation's name in lower case.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op %d", o)
}
