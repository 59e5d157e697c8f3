// Package through remembers for strategy write-through by which SELECT an entry came about, so that the writer whose
// commit invalidates it can run that again. docs/write-through.md says what that is for. A Registry belongs to a space. It
// runs nothing by itself: internal/core does.
//
// What the core calls, and when:
//
//	Registry.Remember   after a fill, and after a hit of a text that has something to do with write-through
//	Registry.Affected   with the tags of a commit: what to read again after it
//	Registry.Forget     when a result cannot be read again, or is not to be
//
// What it promises:
//
//   - A Recipe has its own copy of text and arguments: what the caller changes later is not in it. Arguments whose type
//     cannot be copied are not remembered.
//   - Affected gives recipes that can be followed in the session asked for, and drops the others: nothing of them is warm
//     after the commit.
//   - There are at most MaxRecipes with maxRecipeBytes. The oldest go first. To forget one is never wrong: the next read
//     fills as ever.
//   - A result that nobody of this process has read for MaxUnread refills is not due any more.
//   - It is safe for concurrent use. It dies with the space, and nothing of it is in a shared store.
//
// See docs/decisions/write-through.md (D66-D68).
package through
