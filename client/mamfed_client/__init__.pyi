from mamfed_client.datasets import read_folder as read_folder
from mamfed_client.node.client_app import make_client_app as make_client_app
from mamfed_client.prediction.predict import PredictionRequest as PredictionRequest
from mamfed_client.prediction.predict import predict_images as predict_images
from mamfed_client.preparation.site_data import Site as Site
from mamfed_client.preparation.site_data import SiteData as SiteData
from mamfed_client.preparation.site_data import load_site as load_site
