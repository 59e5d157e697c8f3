package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// Digest identifies the schema of a database: who loads it anywhere gets the
// same Digest while nothing has changed that planning or the form of results
// depends on, and another one afterwards. Statistics, comments, and the
// temporary objects of sessions leave it as it is. A definition that was
// replaced and put back has another Digest than before.
type Digest [32]byte

// DigestVersion names what a Digest covers and how it is made. Digests of
// different versions cannot be compared: it is to be raised with every change
// of parts.
const DigestVersion = 5

// A Digest is made of rows that come in any order: their hashes are added up, those of each
// unit by themselves.

// ownerOf is the column that holds the relation which a row is a part of.
var ownerOf = map[string]int{
	kindRelation: 0, kindColumn: 0, kindKey: 1, kindInherit: 0, kindPartition: 0, kindReference: 1,
	kindTrigger: 0, kindRule: 0, kindCode: 0, kindSource: 0, kindVersion: 0, kindType: 7, kindLeading: 0,
}

// schemaOf is the column that holds the schema of what is no part of a relation.
var schemaOf = map[string]int{kindFunction: 1, kindOperator: 1, kindType: 1}

// take adds a row, unless it is of something temporary.
func (s *sum) take(kind string, row [][]byte) {
	if i, ok := schemaOf[kind]; !ok || !strings.HasPrefix(string(row[i]), "pg_temp_") {
		s.add(kind, row)
	}
}

func (s sum) sum() Digest {
	b := []byte{DigestVersion}
	for _, word := range s {
		b = binary.BigEndian.AppendUint64(b, word)
	}
	return sha256.Sum256(b)
}

// sum is the sum of hashes, modulo 2^64 in each of its words.
type sum [4]uint64

func (s *sum) join(o *sum) {
	for i := range s {
		s[i] += o[i]
	}
}

func (s *sum) add(kind string, row [][]byte) {
	b := make([]byte, 0, 256)
	b = append(b, kind...)
	for _, v := range row {
		if v == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(v))+1)
		b = append(b, v...)
	}
	h := sha256.Sum256(b)
	for i := range s {
		s[i] += binary.BigEndian.Uint64(h[8*i:])
	}
}
