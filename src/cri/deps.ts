/** What the CRI layer is given. All of it is made by the composition root; none of it is global. */
import type { Clock } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { ContainerService } from '../container/service.ts';
import type { EventService } from '../events/feed.ts';
import type { ImageService } from '../image/service.ts';
import type { CallContext, ObserveCall } from '../rpc/adapter.ts';
import type { SandboxService } from '../sandbox/service.ts';
import type { StatsService } from '../stats/service.ts';
import type { StreamingUrls } from '../streaming/tokens.ts';
import type { Logger } from '../telemetry/log.ts';

/** A condition of the node as the kubelet sees it: without both it takes no pods. */
export interface Condition {
  readonly ok: boolean;
  /** One CamelCase word; empty when ok. */
  readonly reason: string;
  /** A sentence for the administrator; empty when ok. */
  readonly message: string;
}

export interface RuntimeState {
  /** Machines can be made. */
  readonly runtime: Condition;
  /** Pods can get addresses. */
  readonly network: Condition;
  /** For verbose status: JSON-able, nothing secret. */
  readonly info: Readonly<Record<string, unknown>>;
}

/** What the CRI asks of pods, as opposed to what administrators do. */
export type CriSandboxes = Pick<SandboxService, 'run' | 'stop' | 'remove' | 'updateResources' | 'get' | 'list'>;
export type CriContainers = Pick<
  ContainerService,
  | 'create'
  | 'start'
  | 'stop'
  | 'remove'
  | 'updateResources'
  | 'reopenLog'
  | 'get'
  | 'list'
  | 'execSync'
  | 'checkStream'
  | 'openStream'
>;
/** The parts of the image store that the CRI shows; the rest is for machines. */
export type CriImages = Pick<ImageService, 'pull' | 'configuration' | 'find' | 'list' | 'remove' | 'usage'>;

export interface CriDeps {
  readonly config: Pick<Config, 'server' | 'runtimeHandlers'>;
  readonly log: Logger;
  readonly clock: Clock;
  /** Version of this program. */
  readonly version: string;
  readonly sandboxes: CriSandboxes;
  readonly containers: CriContainers;
  readonly images: CriImages;
  readonly stats: StatsService;
  /** Of the image store: the path that ImageFsInfo names, and that the figures of containers' own layers name, too. */
  readonly imageDirectory: string;
  readonly events: EventService;
  readonly streaming: StreamingUrls;
  /** Figures and traces of calls; absent: nobody wants any. */
  readonly observe?: ObserveCall | undefined;
  readonly runtimeStatus: (signal: AbortSignal) => Promise<RuntimeState>;
}

/** One RPC: a function of what there is, what was asked and for whom. */
export type Handler<Request, Response> = (
  deps: CriDeps,
  request: Request,
  context: CallContext,
) => Response | Promise<Response>;

/** An RPC that answers with a stream, which ends when the iteration does. */
export type StreamHandler<Request, Response> = (
  deps: CriDeps,
  request: Request,
  context: CallContext,
) => AsyncIterable<Response>;
