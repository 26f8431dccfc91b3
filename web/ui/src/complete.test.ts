import { describe, expect, it } from 'vitest'
import { complete, found, inserted, names } from './complete'

const field = (name: string, doc = '', kind = 'text') => ({ name, kind, doc })
const COLUMNS = names([
  field('start', 'First packet.', 'time'),
  field('client_container', 'Container name (client).'),
  field('server_container', 'Container name (server).'),
  field('client_rtt_us', 'SYN-ACK to ACK.', 'duration'),
  field('server_rtt_us', 'SYN to SYN-ACK.', 'duration'),
  field('client_labels', 'Labels (client).', 'map'),
  field('server_labels', 'Labels (server).', 'map'),
])

/** What is offered where `^` stands. */
const at = (query: string) => {
  const caret = query.indexOf('^')
  return complete(query.replace('^', ''), caret, COLUMNS).offers.map((offer) => offer.word)
}

describe('names', () => {
  it('are those of both sides too', () => {
    expect(COLUMNS.map(({ word }) => word)).toEqual([
      'start', 'container', 'client_container', 'server_container', 'rtt_us', 'client_rtt_us', 'server_rtt_us', 'labels.', 'client_labels.', 'server_labels.',
    ])
    const doc = (word: string) => COLUMNS.find((own) => own.word === word)?.doc
    expect([doc('container'), doc('rtt_us')]).toEqual(['Container name (either side).', 'client_rtt_us or server_rtt_us'])
  })

  it('are found by their definition', () => {
    expect(found(COLUMNS, 'syn ACK server_').map(({ word }) => word)).toEqual(['server_rtt_us'])
    expect(found(COLUMNS, ' ')).toEqual(COLUMNS)
  })
})

describe('a query', () => {
  it('begins with a column, and goes on with one after each word that joins', () => {
    for (const query of ['cont^', 'start > -5m and cont^', 'x || (cont^', 'not CONT^', 'cont^ == web']) {
      expect(at(query), query).toEqual(['container', 'client_container', 'server_container'])
    }
    expect(at('rtt^')).toEqual(['rtt_us', 'client_rtt_us', 'server_rtt_us'])
    expect(at('^')).toEqual([...COLUMNS.map(({ word }) => word), 'not'])
  })

  it('has operators behind a column, and words that join behind a condition', () => {
    expect(at('container ^')).toContain('==')
    expect(at('labels.app not e^')).toEqual(['exists'])
    expect(at('container ex^')).toEqual(['exists', 'not exists'])
    expect(at('container == web a^')).toEqual(['and'])
    expect(at('container == start ^')).toEqual(['and', 'or', '|'])
    expect(at('container in {web, db} o^')).toEqual(['or'])
  })

  it('has values of a column', () => {
    const values = ['web', '"a b"', 'cobweb'].map((word) => ({ word, doc: '' }))
    const of = (query: string) => complete(query, query.length, COLUMNS, values)
    for (const query of ['container == we', 'x and (container!=we', 'container in {a, we', 'container not in { we']) {
      expect(of(query).column, query).toBe('container')
      expect(of(query).offers.map(({ word }) => word)).toEqual(['web', 'cobweb'])
    }
    expect(of('labels.app/x = ').column).toBe('labels.app/x')
    for (const query of ['container > ', 'container ~ ', 'top(a, ', 'container == "we']) expect(of(query).column, query).toBe('')
  })

  it('has values that nobody offers', () => {
    for (const query of ['container == c^', 'container in {c^', 'container in {web, c^', 'container == "a and c^', "container ~ '^"]) expect(at(query), query).toEqual([])
  })

  it('goes on with figures behind a pipe', () => {
    expect(at('start > -5m | t^')).toEqual(['top', 'count', 'distinct(', 'rate('])
    expect(at('| top 5 cont^')).toEqual(['container', 'client_container', 'server_container'])
    expect(at('| count by^ 1m')).toEqual([])
    expect(at('container == "|" a^')).toEqual(['and'])
    expect(at('| top 5 container | ^')).toEqual(['sort', 'limit'])
  })

  it('has a word that is completed as a whole', () => {
    expect(complete('x and container == y', 10, COLUMNS)).toMatchObject({ from: 6, to: 15 })
    expect(complete('', 0, COLUMNS)).toMatchObject({ from: 0, to: 0 })
  })

  it('offers nothing that is there already', () => {
    expect(at('start^')).toEqual([])
  })

  it('has what was chosen in the place of the word', () => {
    expect(inserted('a == 1 and cont', 'container', 11, 15)).toEqual({ text: 'a == 1 and container ', caret: 21 })
    expect(inserted('cont == web', 'container', 0, 4)).toEqual({ text: 'container == web', caret: 9 })
    expect(inserted('| su', 'sum(', 2, 4)).toEqual({ text: '| sum(', caret: 6 })
    expect(inserted('', 'labels.', 0, 0)).toEqual({ text: 'labels.', caret: 7 })
  })
})
