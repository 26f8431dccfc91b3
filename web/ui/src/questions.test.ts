import { describe, expect, it } from 'vitest'
import { whenever } from './questions'

describe('a question of any time', () => {
  it('is another of another table, query or set of observations, and the same of another time', () => {
    const own = whenever('flows', { q: 'port == 1', from: '-1h', to: 'now' })
    expect(whenever('flows', { q: 'port == 1', from: '-7d', to: 'now', all_observations: undefined })).toBe(own)
    for (const other of [
      whenever('transactions', { q: 'port == 1' }),
      whenever('flows', { q: 'port == 2' }),
      whenever('flows', { q: 'port == 1', all_observations: true }),
    ]) {
      expect(other).not.toBe(own)
    }
  })
})
