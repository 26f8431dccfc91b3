/** What a query can go on with, where the caret stands in it. */

import type { Field } from './api'

/** A word, and what it means. */
export interface Offer {
  word: string
  doc: string
}

/** Columns, each pair of them after the name that means either side. */
export function names(fields: Field[]): Offer[] {
  const known = new Set(fields.map((field) => field.name))
  return fields.flatMap(({ name, kind, doc }) => {
    const dot = kind === 'map' ? '.' : ''
    const own = { word: name + dot, doc }
    const short = name.startsWith('client_') ? name.slice('client_'.length) : ''
    if (!known.has(`server_${short}`)) return [own]
    const either = doc.includes(' (client)') ? doc.replace(' (client)', ' (either side)') : `client_${short} or server_${short}`
    return [{ word: short + dot, doc: either }, own]
  })
}

/** Those whose name or definition has all of these words. */
export function found(offers: Offer[], words: string): Offer[] {
  const parts = words.toLowerCase().split(/\s+/)
  return offers.filter(({ word, doc }) => parts.every((part) => `${word} ${doc}`.toLowerCase().includes(part)))
}

const NOT = { word: 'not', doc: 'the condition does not hold' }
const AFTER_COLUMN: Offer[] = [
  { word: '==', doc: 'equal; * and ? in text, a network of addresses' },
  { word: '!=', doc: 'not equal' },
  { word: '<', doc: 'less' },
  { word: '>', doc: 'more' },
  { word: '~', doc: 'a regular expression is found in the text' },
  { word: 'in', doc: 'one of {80, 443, 8000..8999}, an address of 10.0.0.0/8' },
  { word: 'exists', doc: 'there is a value' },
  { word: 'not in', doc: 'none of {…}' },
  { word: 'not exists', doc: 'there is no value' },
]
const AFTER_CONDITION: Offer[] = [
  { word: 'and', doc: 'both hold' },
  { word: 'or', doc: 'one holds' },
  { word: '|', doc: 'figures of the rows instead of the rows' },
]
const FIGURES: Offer[] = [
  { word: 'count', doc: 'number of rows' },
  { word: 'sum(', doc: 'sum of an amount' },
  { word: 'avg(', doc: 'mean' },
  { word: 'min(', doc: 'least value' },
  { word: 'max(', doc: 'greatest value' },
  { word: 'p50(', doc: 'median' },
  { word: 'p95(', doc: 'quantile; others as p99.9(' },
  { word: 'distinct(', doc: 'number of distinct values' },
  { word: 'rate(', doc: 'sum per second' },
]
const TOP = { word: 'top', doc: 'the groups with the most, as in top 10 server_workload by bytes' }
const BY = { word: 'by', doc: 'what groups are made of, also time as in 1m; what top goes by' }
const AFTER_FIGURES: Offer[] = [
  { word: 'sort', doc: 'another order: sort COLUMN desc' },
  { word: 'limit', doc: 'so many groups at most' },
]

const WORD = String.raw`[^\s(){},=!<>~&|"']`
const TOKENS = new RegExp(String.raw`"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'|$)|&&|\|\||[=!<>~]+|[(){},|]|${WORD}+`, 'g')
/** Values follow. */
const COMPARES = /^([=!<>~]+|in|\{|,)$/i
const LAST = new RegExp(`${WORD}*$`)
const FIRST = new RegExp(`^${WORD}*`)

/** The column, or label, of which a value follows. */
const COMPARED = /([\w./-]+)\s*(?:==?|!=|\s(?:not\s+)?in\s*\{(?:[^{}]*,)?)\s*$/i

/** The ends of the word at the caret, and what it may become; what begins with it first. `column` is the one whose values may stand there. */
export interface Completion {
  from: number
  to: number
  offers: Offer[]
  column: string
}

/** `values` are offered where a value may stand. */
export function complete(text: string, caret: number, columns: Offer[], values: Offer[] = []): Completion {
  const before = text.slice(0, caret)
  const from = caret - (LAST.exec(before)?.[0].length ?? 0)
  const to = caret + (FIRST.exec(text.slice(caret))?.[0].length ?? 0)
  const word = before.slice(from).toLowerCase()
  const tokens = before.slice(0, from).match(TOKENS) ?? []
  const column = COMPARES.test(tokens.at(-1) ?? '') ? (COMPARED.exec(before.slice(0, from))?.[1] ?? '') : ''
  const rank = (offer: Offer) => offer.word.toLowerCase().indexOf(word)
  const all = (column === '' ? offered(tokens, columns) : values).filter((offer) => rank(offer) >= 0)
  const offers = [...all.filter((offer) => rank(offer) === 0), ...all.filter((offer) => rank(offer) > 0)]
  return { from, to, column, offers: offers.some((offer) => offer.word === word) && offers.length === 1 ? [] : offers }
}

function offered(tokens: string[], columns: Offer[]): Offer[] {
  const last = tokens.at(-1) ?? ''
  const pipes = tokens.filter((token) => token === '|').length
  if (/^["']/.test(last) && (last.length === 1 || last.at(-1) !== last[0])) return []
  if (last === '|') return pipes === 1 ? [TOP, ...FIGURES] : AFTER_FIGURES
  if (pipes > 0) return [...columns, ...FIGURES, BY]
  if (/^not$/i.test(last) && isColumn(tokens.slice(0, -1), columns)) return AFTER_COLUMN.filter(({ word }) => /^(in|exists)$/.test(word))
  if (/^(|\(|and|or|not|&&|\|\||!)$/i.test(last)) return [...columns, NOT]
  if (COMPARES.test(last)) return []
  return isColumn(tokens, columns) ? AFTER_COLUMN : AFTER_CONDITION
}

/** Whether the last word is a column, or a label, and no value. */
function isColumn(tokens: string[], columns: Offer[]): boolean {
  const base = tokens.at(-1)?.replace(/\..*/s, '')
  return columns.some(({ word }) => word === base || word === `${base}.`) && !COMPARES.test(tokens.at(-2) ?? '')
}

/** The text with the word in the place of what stood between `from` and `to`, and where the caret is then. */
export function inserted(text: string, word: string, from: number, to: number): { text: string; caret: number } {
  const space = /[(.]$/.test(word) || /^\s/.test(text.slice(to)) ? '' : ' '
  const before = text.slice(0, from) + word + space
  return { text: before + text.slice(to), caret: before.length }
}
