/** What the page shows. */

import type { ApiError, Completeness, Groups, Page, Parameters, Table, Topology } from './api'

/** Rows come with what was asked, of which there are more; `paged` have more than the first page. */
export type Answer =
  | { of: Table; page: Page; by: Parameters; paged: boolean }
  | { of: 'groups'; groups: Groups }
  | { of: 'map'; topology: Topology }

/** What an answer lacks. */
export function completeness(answer: Answer): Completeness {
  return answer.of === 'map' ? answer.topology.completeness : answer.of === 'groups' ? answer.groups.completeness : answer.page.completeness
}

/** Why there is no answer. It is of what was asked then, with the query that may have a mistake. */
export type Failure = { of: string; text: string; error: ApiError }
