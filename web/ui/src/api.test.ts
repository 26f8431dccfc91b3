import { afterEach, describe, expect, it, vi } from 'vitest'
import { downloads, extent, flow, Newest, search, whenOver } from './api'

describe('downloads', () => {
  it('are of everything that matches, in every format', () => {
    const links = downloads('flows', { q: 'port == 53', from: '-1h', to: 'now' }, null)
    expect(links.map(([name]) => name)).toEqual(['Flows as CSV', 'Flows as JSON lines', 'Flows as Parquet', 'Flows as IPFIX', 'Packets as pcapng'])
    expect(links[3]?.[1]).toBe('/api/v1/flows/export?q=port+%3D%3D+53&from=-1h&to=now&format=ipfix')
    expect(links[4]?.[1]).toBe('/api/v1/pcap?q=port+%3D%3D+53&from=-1h&to=now')
  })

  it('are also of groups, and of transactions where there is such', () => {
    const links = downloads('transactions', { q: '' }, { name: 'Groups', q: '| count by app' })
    expect(links.map(([name]) => name)).toEqual(['Groups as CSV', 'Transactions as CSV', 'Transactions as JSON lines', 'Transactions as Parquet'])
    expect(links[0]?.[1]).toBe('/api/v1/transactions/aggregate?q=%7C+count+by+app&format=csv')
  })
})

describe('all that is kept', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('may be later than now', async () => {
    const asked: string[] = []
    const rows = [{ first: '2026-03-01T00:00:00.000000000Z', last: '2100-01-01T00:00:00.500000000Z' }]
    vi.stubGlobal('fetch', async (path: string) => asked.push(path) && new Response(JSON.stringify({ rows })))
    expect(await extent('flows', { q: 'port == 53', from: '-1h', to: 'now' })).toEqual({ from: rows[0]?.first, to: '2100-01-01T00:00:00.501Z' })
    expect(asked).toHaveLength(1)
    expect(new URLSearchParams(asked[0]?.split('?')[1]).get('to')).toBe('2262-04-11')
  })
})

describe('a newer question', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('ends the one before, and its further requests', async () => {
    const answers = (_: string, { signal }: RequestInit) =>
      new Promise<Response>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
    vi.stubGlobal('fetch', answers)
    const questions = new Newest()
    const first = questions.next()
    const page = search('flows', {}, questions.signal)
    const second = questions.next()
    await expect(page).rejects.toThrow()
    expect([first.aborted, second.aborted]).toEqual([true, false])
    questions.end()
    expect(second.aborted).toBe(true)
  })
})

describe('a session that is over', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('is told wherever it is found out', async () => {
    const over = vi.fn()
    whenOver(over)
    vi.stubGlobal('fetch', async () => new Response(JSON.stringify({ error: { message: 'not authenticated' } }), { status: 401 }))
    await expect(flow('1')).rejects.toThrow('not authenticated')
    expect(over).toHaveBeenCalledOnce()
  })
})
